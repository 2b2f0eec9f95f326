"""Looks at a fixed sample of each tensor: the step before packing, Gram matrices after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import frexp, ldexp, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from randes_cli.build.sampled import BaseSample
from randes_cli.build.strips import Participant, Source
from randes_cli.core.grid import raised_exponent
from randes_cli.core.kernel import GRID_LIMIT, delta_energy
from randes_cli.plan import GRAM_SAMPLE, STEP_SAMPLE, Rect, Unit, sample_runs

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class Deltas(Protocol):
    """One task's deltas and transform, as sampling needs them."""

    @property
    def group(self) -> int:
        """The superposition that it is in."""

    def order(self, unit: Unit) -> list[int]:
        """σ of the task on a unit."""

    def bits(self, unit: Unit, position: int) -> bytes:
        """The packed sign bits of the task at a position of a unit."""

    def delta(self, base: BaseSample, name: str) -> F32 | None:
        """The task's delta on a sample of a tensor, None where it has none."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Sampled deltas of one unit.

    Attributes:
        rms: the largest root mean square of one participant's delta.
        peak: the largest magnitude.
        squares: mean square of each participant's delta, for predictions before packing.
    """

    rms: float
    peak: float
    squares: tuple[float, ...]


def spread(base: Source | None, participants: Sequence[Participant], unit: Unit) -> Spread:
    """RMS and peak of the participants' deltas on the step sample of a unit."""
    tasks = len(participants)
    peak, totals, counts = 0.0, [0.0] * tasks, [0] * tasks
    sample = BaseSample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
    for name in unit.names:
        for who, participant in enumerate(participants):
            delta = participant.delta(sample, name)
            if delta is None or not delta.size:
                continue
            peak = max(peak, float(delta.max()), -float(delta.min()))
            totals[who] += float(np.square(delta, dtype=np.float64).sum())
            counts[who] += delta.size
    squares = [total / count if count else 0.0 for total, count in zip(totals, counts, strict=True)]
    return Spread(sqrt(max(squares, default=0.0)), peak, tuple(squares))


def supposed_spread(participants: Sequence[Participant], unit: Unit) -> Spread:
    """What to expect of a unit whose data are not at hand: that all participants are alike."""
    squares = (
        1.0 if any(name in participant.fit.superposed for name in unit.names) else 0.0
        for participant in participants
    )
    return Spread(1.0, 1.0, tuple(squares))


@dataclass(frozen=True)
class SampledLengths:
    """What a sample says of deltas before they are packed: see `core.prediction.Lengths`.

    Attributes:
        norms: ‖Δ‖², tensors × T.
        rounded: ⟨Δ, q⟩ and ‖q‖², 2 × that.
        changed: whether the sample shows any change.
    """

    norms: F64
    rounded: F64
    changed: NDArray[np.bool_]


def sampled_lengths(
    base: Source | None,
    participants: Sequence[Participant],
    exponents: Mapping[Unit, int],
    rows: Sequence[str],
) -> SampledLengths:
    """Lengths on the step sample, scaled to whole tensors; `rows` are the tensors' names.

    A step that the sample shows to be too fine counts as raised, as packing raises it.
    """
    norms, changed = np.zeros((2, len(rows), len(participants)))
    rounded = np.zeros((2, *norms.shape))
    place = {name: row for row, name in enumerate(rows)}
    for unit, exponent in exponents.items():
        sample = BaseSample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
        found = [
            (place[name], who, delta)
            for name in unit.names
            for who, participant in enumerate(participants)
            if (delta := participant.delta(sample, name)) is not None and delta.any()
        ]
        peak = int(
            max((float(np.abs(delta).max()) for *_, delta in found), default=0.0) / 2.0**exponent
        )
        step = exponent if peak <= GRID_LIMIT else raised_exponent(exponent, peak, bits=16)
        factor = unit.rows * unit.cols / max(1, sample.elements)
        for row, who, delta in found:
            energy = delta_energy(delta, step)
            norms[row, who] = factor * energy.whole(step)
            rounded[:, row, who] = factor * energy.kept(step), factor * energy.rounded(step)
            changed[row, who] = 1
    return SampledLengths(norms, rounded, changed.astype(np.bool_))


#: Bits of the largest magnitude on a sample's grid: sums of 2^14 products are below 2^53.
_GRID_BITS = 18


def _on_grid(delta: F32, out: F64) -> float:
    """Write a delta in units of a grid of its own, rounded to integers; return the unit."""
    peak = max(float(delta.max()), -float(delta.min())) if delta.size else 0.0
    exponent = frexp(peak)[1] - _GRID_BITS
    np.rint(np.ldexp(delta, -exponent, dtype=np.float64), out=out)
    return ldexp(1.0, exponent)


def _products(units: F64, scale: F64, first: int) -> F64:
    """The T × T products of T × n integers in units of `scale`; see `gram` for `first`."""
    made = np.zeros((len(units), len(units)))
    made[first:] = units[first:] @ units.T
    made[:first, first:] = made[first:, :first].T
    old = np.arange(first)
    made[old, old] = np.einsum("ij,ij->i", units[:first], units[:first])
    return made * np.outer(scale, scale)


def gram(
    base: Source | None, participants: Sequence[Deltas], unit: Unit, first: int = 0
) -> tuple[F64, F64]:
    """Gram matrices of the deltas, as they are and transformed: two of K × T × T.

    Entry (k, i, j) is ⟨Δ_i, Δ_j⟩ over the Gram sample of layer (or position) k, scaled to the
    whole tensor, each delta rounded to 2^18 units of its largest magnitude there. The sums are of
    integers below 2^53, so they are exact in float64, whatever the order. Products of two
    participants before `first` are left out.
    """
    tasks = len(participants)
    plain, met = np.zeros((2, unit.layers, tasks, tasks))
    orders = [participant.order(unit) for participant in participants]
    sample = BaseSample(base, sample_runs(unit.rows, unit.cols, GRAM_SAMPLE))
    factor = unit.rows * unit.cols / max(1, sample.elements)
    for position, name in enumerate(unit.names):
        here, there = np.zeros((2, tasks, sample.elements))
        scales = np.zeros((2, tasks))
        for who, participant in enumerate(participants):
            moved = unit.names[orders[who][position]]
            delta = participant.delta(sample, name)
            if delta is not None:
                scales[0, who] = _on_grid(delta, here[who])
            delta = delta if moved == name else participant.delta(sample, moved)
            if delta is not None:
                scales[1, who] = _on_grid(delta, there[who])
                there[who] *= _signs(unit, participant.bits(unit, position), sample.runs)
        plain[position] = _products(here, scales[0], first)
        met[position] = _products(there, scales[1], first)
    return plain * factor, met * factor


def _signs(unit: Unit, flips: bytes, runs: Sequence[Rect]) -> F32:
    """The signs of all runs of a sample together."""
    windows = (unit.window(flips, rect, 1.0) for rect in runs)
    return np.concatenate([window.values().reshape(-1) for window in windows])
