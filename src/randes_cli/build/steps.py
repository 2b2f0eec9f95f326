"""Steps: how the grid of every superposition of a build is chosen, and raised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from randes_cli.build.samples.sample import Sampled
from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.core.grid import (
    LIMIT,
    fits_8_bits,
    raised_exponent,
    step_exponent,
    step_exponents,
)
from randes_cli.core.kernel import GRID_LIMIT
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.location import Place
from randes_cli.plan import Unit

#: A tensor whose sample shows no change gets its step from its largest change, as if that
#: were so many times the root mean square.
PEAK_TO_RMS = 8


class Step(NamedTuple):
    """The grid of a superposition: integers of `bits` bits, of 2^`exponent` each."""

    exponent: int
    bits: int


class Grids(NamedTuple):
    """The steps of units as columns, one row each; what has none is 16 bits wide.

    Attributes:
        ready: whether there is a step.
        exponents: of the steps, 0 where there is none.
        bits: of the superpositions.
    """

    ready: Bools
    exponents: I64
    bits: I64


def measured_grids(rms: F64, peaks: F64, *, bits: int, capacity: int) -> Grids:
    """The steps of units whose samples have these RMS and peaks; none where nothing changed."""
    ready = rms > 0
    there = np.where(ready, rms, 1.0)
    narrow = ready & (bits == 8) & fits_8_bits(there, peaks, capacity=capacity)
    eight = step_exponents(there, bits=8, capacity=capacity)
    exponents = np.where(narrow, eight, step_exponents(there, bits=16, capacity=capacity))
    return Grids(ready, np.where(ready, exponents, 0), np.where(narrow, 8, 16))


class BeyondGrid(Exception):
    """A unit's deltas pass the coarsest grid."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit)
        self.unit = unit


class Overflowing(Exception):
    """A unit's deltas pass the range of a superposition whose step cannot change."""

    def __init__(self, unit: Unit, peak: int, bits: int) -> None:
        super().__init__(unit, peak, bits)
        self.unit, self.peak, self.bits = unit, peak, bits


def no_room(
    error: BeyondGrid | Overflowing, path: Place, base: str | None
) -> CheckpointError | MismatchError:
    """What to say of deltas that no step can hold; `base` is a new bank's, None for an old one."""
    name = error.unit.names[0]
    if isinstance(error, Overflowing):
        return MismatchError(
            f"{path}: tensor {name!r} would overflow its {error.bits}-bit superposition "
            f"({error.peak} steps, {LIMIT[error.bits]} fit); pack the bank anew with --bits 16 or "
            "a larger --capacity"
        )
    far = f"tensor {name!r}: a task differs by more than 2^115, beyond every grid; "
    if base is None:
        return MismatchError(f"{path}: {far}it cannot be superposed")
    return CheckpointError(f"{base}: {far}keep it exactly (--exact REGEX)")


class Steps:
    """The steps of a build.

    Attributes:
        given: steps that are not measured: those that a bank records, or that options ask for.
        fixed: whether these hold whatever comes: a bank's do, for its sums are made of them.
        ready: the steps of the units that are superposed; the others are only looked through.
    """

    def __init__(
        self, given: Mapping[Unit, Step], *, bits: int, capacity: int, fixed: bool
    ) -> None:
        self.given, self.fixed = dict(given), fixed
        self.bits, self.capacity = bits, capacity
        self.ready: dict[Unit, Step] = {}
        self._sampled: list[tuple[Sequence[Unit], Sampled]] = []

    def grids(self, units: Sequence[Unit], bits: int, capacity: int) -> Grids:
        """The steps of units, or those that the same samples give at another width or capacity."""
        if (bits, capacity) == (self.bits, self.capacity):
            steps = [self.ready.get(unit) for unit in units]
            ready = np.array([step is not None for step in steps], bool)
            exponents = np.array([step.exponent if step else 0 for step in steps], np.int64)
            return Grids(ready, exponents, np.array([*map(self.width, units)], np.int64))
        return measured_grids(*self._samples(units), bits=bits, capacity=capacity)

    def _samples(self, units: Sequence[Unit]) -> Sampled:
        """The samples of units, zeros of those that were not sampled."""
        every = chain.from_iterable(some for some, _ in self._sampled)
        row = {unit: number for number, unit in enumerate(every)}
        found = Sampled.joined([*(one for _, one in self._sampled), Sampled(*np.zeros((2, 1)))])
        return found.at([row.get(unit, -1) for unit in units])

    @property
    def known(self) -> dict[Unit, Step]:
        """Every unit's step, superposed now or not."""
        return {**self.given, **self.ready} if self.given else self.ready

    def step(self, unit: Unit) -> Step:
        """The step of a unit that has one."""
        return self.ready.get(unit) or self.given[unit]

    def exponents(self) -> dict[Unit, int]:
        return {unit: step.exponent for unit, step in self.known.items()}

    def width(self, unit: Unit) -> int:
        """Bits of a unit's superposition, 16 where they are not known yet."""
        step = self.ready.get(unit) or self.given.get(unit)
        return step.bits if step else 16

    def keep(self, units: Iterable[Unit]) -> None:
        """These are in the old bank and stay as they are."""
        self.ready.update((unit, self.given[unit]) for unit in units)

    def sampled(self, units: Sequence[Unit], found: Sampled) -> None:
        """Take the samples of units that enter the bank; one without a change gets no step yet.

        A unit that comes back keeps the step that it had, so that its bytes come back too.
        """
        self._sampled.append((units, found))
        grids = measured_grids(*found, bits=self.bits, capacity=self.capacity)
        alike: dict[tuple[int, int], Step] = {}
        for unit, ready, *grid in zip(units, *(column.tolist() for column in grids), strict=True):
            if ready:
                step = alike.setdefault(tuple(grid), Step(*grid))
                self.ready[unit] = (self.given and self.given.get(unit)) or step

    def late(self, unit: Unit, largest: float) -> None:
        """Give a step to a unit of which only the whole pass showed a change."""
        self.ready[unit] = self.given.get(unit) or self._measured(largest / PEAK_TO_RMS, 16)

    def _measured(self, rms: float, bits: int) -> Step:
        return Step(step_exponent(rms, bits=bits, capacity=self.capacity), bits)

    def overflowing(self, units: Iterable[Unit]) -> Unit | None:
        """The first of these whose step cannot change."""
        return next((unit for unit in units if self.fixed and unit in self.given), None)

    def narrow(self, units: Iterable[Unit]) -> set[Unit]:
        """Those of these units that have 8 bits."""
        return {unit for unit in units if self.width(unit) == 8}

    def widen(self, units: Iterable[Unit]) -> None:
        """Keep at 16 bits what passed the range of 8."""
        units = list(units)
        for unit, rms in zip(units, self._samples(units).rms.tolist(), strict=True):
            self.given.pop(unit, None)
            if not rms:
                self.ready.pop(unit)  # the whole pass will show it again
            else:
                self.ready[unit] = self._measured(rms, 16)

    def coarsen(self, peaks: Mapping[Unit, int]) -> None:
        """Raise the steps of 16-bit units by their peaks. Raises BeyondGrid."""
        for unit, peak in peaks.items():
            exponent = self.ready[unit].exponent
            raised = raised_exponent(exponent, peak)
            if raised == exponent:
                raise BeyondGrid(unit)
            self.ready[unit] = Step(raised, 16)

    def foreseen(self, unit: Unit, peak: int, *, only_added: bool) -> int:
        """The exponent that packing comes to for a unit with a delta of `peak` of its steps.

        Where deltas are `only_added`, to whole sums, those are within their range before and after.
        Raises Overflowing or BeyondGrid.
        """
        bits, exponent = self.width(unit), self.step(unit).exponent
        most = min(GRID_LIMIT, 2 * LIMIT[bits]) if only_added else GRID_LIMIT
        if self.overflowing([unit]) and peak > most:
            raise Overflowing(unit, peak, bits)
        if peak <= GRID_LIMIT:
            return exponent
        raised = raised_exponent(exponent, peak)
        if peak >> max(0, raised - exponent) > GRID_LIMIT:
            raise BeyondGrid(unit)
        return raised

    def tables(self, units: Sequence[Unit]) -> tuple[dict[str, int], dict[str, int]]:
        """Exponents by tensor, and the bits of those that are not `bits` wide.

        A bank's given steps are among them: a superposition that went returns alike. Of a new
        bank the widths of units found late come last.
        """
        known = self.known if self.fixed else self.ready
        steps = {n: known[unit].exponent for unit in units if unit in known for n in unit.names}
        ordered = [unit for unit in units if unit in known] if self.fixed else list(known)
        widths = {
            name: known[unit].bits
            for unit in ordered
            if known[unit].bits != self.bits
            for name in unit.names
        }
        return steps, widths


def given_steps(
    units: Iterable[Unit], exponents: Mapping[str, int], widths: Mapping[str, int], bits: int
) -> dict[Unit, Step]:
    """The steps that tables by tensor's name give to units."""
    return {
        unit: Step(exponents[unit.names[0]], widths.get(unit.names[0], bits))
        for unit in units
        if unit.names[0] in exponents
    }
