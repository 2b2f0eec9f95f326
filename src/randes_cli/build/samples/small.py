"""Samples of many small tensors at a time: the numbers of `sample`, a thousand tensors a step.

A tensor that is its own sample needs no runs of rows, and of such there may be 100,000: what is
looked at is a list of places (a unit and a position in it), and those of one shape are one array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from randes_cli.build.inputs.participants import Deltas, Participant
from randes_cli.core.arrays import F32, F64, I64, Array, Bools
from randes_cli.core.columns import Some
from randes_cli.core.compiled.sample import put_on_grid
from randes_cli.core.tails import means
from randes_cli.files.reading import read_values_of
from randes_cli.files.source import Sample, Source
from randes_cli.plan import Rect, Unit
from randes_cli.specs import Shuffle

#: Elements of all deltas of a list of places, at the most.
_ROOM = 2**19


class Spot(NamedTuple):
    """A tensor of a unit."""

    unit: Unit
    position: int


#: The orders of one unit at a time, by task's seed and index: some types have 30,000 layers.
Orders = dict[Unit, dict[tuple[int, int], list[int]]]


class Spots:
    """Places of tensors, as columns.

    Attributes:
        units: of each.
        positions: of each in its unit.
        names: of the tensors.
        single: whether each is all of its unit.
    """

    def __init__(
        self, units: Sequence[Unit], positions: Sequence[int], names: Some, orders: Orders
    ) -> None:
        self.units, self.positions, self.names = units, positions, names
        self._orders = orders
        self.single = all(len(unit.names) == 1 for unit in units)

    def __getitem__(self, at: int) -> Spot:
        return Spot(self.units[at], self.positions[at])

    def __iter__(self) -> Iterator[Spot]:
        return map(Spot, self.units, self.positions)

    def __len__(self) -> int:
        return len(self.units)

    def alike(self) -> Iterator[tuple[I64, Unit, Some]]:
        """Those of one shape with the same signs: which, one of their units, and their names."""
        forms = [unit.form for unit in self.units]
        numbers = {form: number for number, form in enumerate(dict.fromkeys(forms))}
        form_of = np.fromiter(map(numbers.__getitem__, forms), np.int64, len(forms))
        for number in numbers.values():
            rows = np.flatnonzero(form_of == number)
            yield rows, self.units[rows[0]], self.names.some(rows)

    def moved(self, at: I64, one: Deltas) -> tuple[str, ...]:
        """The tensor that a participant has at each of these places."""
        unit = self.units[at[0]]
        if self.units[at[-1]] is unit and len(at) > 1:  # units come one after the other
            places = [self.positions[n] for n in at.tolist()]
            return Some.of(unit.names, np.array(self._order(unit, one), np.int64)[places])
        made = []
        for unit, position in map(self.__getitem__, at.tolist()):
            if unit.layers == 1:
                made.append(unit.names[position])
            else:
                made.append(unit.names[self._order(unit, one)[position]])
        return tuple(made)

    def _order(self, unit: Unit, one: Deltas) -> list[int]:
        if unit not in self._orders:
            self._orders.clear()
        known, task = self._orders.setdefault(unit, {}), (one.seed, one.index)
        if task not in known:
            known[task] = unit.order(*task)
        return known[task]


def small_lists(
    units: Iterable[Unit], tasks: int, most: int, *, far: bool
) -> Iterator[Unit | Spots]:
    """Units in their order, those of tensors of up to `most` elements as lists of their places.

    What is read from afar is not: there many are asked for at a time.
    """
    units = list(units)
    whole = tuple(chain.from_iterable([unit.names for unit in units]))
    mine, positions, room, place, orders = list[Unit](), list[int](), 0, 0, Orders()

    def held() -> Spots:
        first = place - len(mine)
        return Spots(mine, positions, Some.of(whole, np.arange(first, place)), orders)

    for unit in units:
        elements, layers = unit.form.elements, len(unit.names)
        if far or elements > most:
            if mine:
                yield held()
            mine, positions, room, place = [], [], 0, place + layers
            yield unit
            continue
        for position in range(layers):
            mine.append(unit)
            positions.append(position)
            place += 1
            room += elements * tasks
            if room > _ROOM:
                yield held()
                mine, positions, room = [], [], 0
    if mine:
        yield held()


class Spreads(NamedTuple):
    """Of each place and participant: sums of squares, elements; of each place the largest |Δ|."""

    squares: F64
    counts: Array
    peaks: F64


def spreads(base: Source | None, participants: Sequence[Participant], spots: Spots) -> Spreads:
    """What `sample.spread` adds up, of each place by itself."""
    shape = len(spots), len(participants)
    squares, counts, peaks = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(len(spots))
    for at, unit, names in spots.alike():
        zero = base_values(base, names, unit)
        for who, one in enumerate(participants):
            delta, there = deltas(base, zero, one, names, unit)
            squares[at, who] = np.square(delta, dtype=np.float64).sum(axis=1)
            counts[at, who] = there * unit.form.elements
            peaks[at] = np.maximum(peaks[at], np.abs(delta).max(axis=1))
    return Spreads(squares, counts, peaks)


def small_grams(
    base: Source | None, participants: Sequence[Deltas], spots: Spots, first: int
) -> tuple[F64, F64, F64]:
    """`sample.gram` of each place: two of places × T × T, and 4 × places × T of their tails."""
    tasks = len(participants)
    plain, met = np.zeros((2, len(spots), tasks, tasks))
    tails = np.zeros((4, len(spots), tasks))
    for at, unit, names in spots.alike():
        zero = base_values(base, names, unit)
        here, there = np.zeros((2, len(at), tasks, unit.form.elements))
        scales = np.zeros((2, len(at), tasks))
        for who, one in enumerate(participants):
            delta, has = deltas(base, zero, one, names, unit)
            scales[0, :, who] = on_grid(delta, has, here[:, who])
            if who >= first:
                tails[:, at, who] = means(here[:, who], scales[0, :, who]) * has
            moved = names if unit.form.shuffle is Shuffle.none else spots.moved(at, one)
            if moved == names:
                there[:, who], scales[1, :, who] = here[:, who], scales[0, :, who]
            else:
                delta, has = deltas(base, base_values(base, moved, unit), one, moved, unit)
                scales[1, :, who] = on_grid(delta, has, there[:, who])
            there[:, who] *= unit.form.many_signs(names, one.seed)
        plain[at] = products(here, scales[0], first)
        met[at] = products(there, scales[1], first)
    return plain, met, tails


def deltas(
    base: Source | None, zero: F32 | None, one: Deltas, names: Sequence[str], unit: Unit
) -> tuple[F32, Bools]:
    """A participant's deltas of tensors like a unit's, one a row, and which of them it has.

    `zero` are the base's values.
    """
    found = one.many(zero, names, unit)
    if found is not None:
        return found, np.ones(len(names), bool)
    elements = unit.form.elements
    made, there = np.zeros((len(names), elements), np.float32), np.zeros(len(names), bool)
    sample = Sample(base, [Rect(0, unit.rows, 0, unit.cols, unit.cols)])
    for row, name in enumerate(names):
        delta = one.delta(sample, name)
        if delta is not None:
            made[row], there[row] = delta, True
    return made, there


def base_values(base: Source | None, names: Sequence[str], unit: Unit) -> F32 | None:
    return None if base is None else read_values_of(base, names, unit.form.elements)


#: Bits of the largest magnitude on a sample's grid: sums of 2^14 products are below 2^53.
GRID_BITS = 18


def on_grid(delta: F32, there: Bools, out: F64) -> F64:
    """Write deltas in units of grids of their own, rounded to integers; return the units."""
    if len(delta) == 1 and (unit := put_on_grid(delta[0], GRID_BITS, out[0])) is not None:
        return np.array([unit]) * there
    peaks = np.abs(delta).max(axis=1, initial=0).astype(np.float64)
    exponents = np.frexp(peaks)[1] - GRID_BITS
    np.multiply(delta, np.ldexp(1.0, -exponents)[:, None], out=out, dtype=np.float64)
    np.rint(out, out=out)
    made: F64 = np.ldexp(1.0, exponents) * there
    return made


def products(units: F64, scale: F64, first: int) -> F64:
    """The T × T products of places × T × n integers in units of `scale`; see `sample.gram`."""
    made = np.zeros((len(units), units.shape[1], units.shape[1]))
    made[:, first:] = units[:, first:] @ units.transpose(0, 2, 1)
    made[:, :first, first:] = made[:, first:, :first].transpose(0, 2, 1)
    old = np.arange(first)
    made[:, old, old] = np.einsum("kij,kij->ki", units[:, :first], units[:, :first])
    found: F64 = made * (scale[:, :, None] * scale[:, None, :])
    return found
