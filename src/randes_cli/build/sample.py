"""Looks at a fixed sample of each tensor: the step before packing, Gram matrices after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from randes_cli.build.sampled import BaseSample
from randes_cli.build.strips import Participant, Source
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


def gram(
    base: Source | None, participants: Sequence[Deltas], unit: Unit, exponent: int
) -> tuple[F64, F64]:
    """Gram matrices of the rounded deltas, as they are and transformed: two of K × T × T.

    Entry (k, i, j) is ⟨q_i, q_j⟩ · step² over the Gram sample of layer (or position) k, scaled
    to the whole tensor. The sums are of integers below 2^53, so they are exact in float64,
    whatever the order.
    """
    tasks = len(participants)
    plain, met = np.zeros((2, unit.layers, tasks, tasks))
    orders = [participant.order(unit) for participant in participants]
    sample = BaseSample(base, sample_runs(unit.rows, unit.cols, GRAM_SAMPLE))
    factor = 4.0**exponent * (unit.rows * unit.cols / max(1, sample.elements))
    step = np.float32(2.0**-exponent)
    for position, name in enumerate(unit.names):
        here, there = np.zeros((2, tasks, sample.elements))
        for who, participant in enumerate(participants):
            moved = unit.names[orders[who][position]]
            delta = participant.delta(sample, name)
            if delta is not None:
                np.rint(delta * step, out=here[who])
            delta = delta if moved == name else participant.delta(sample, moved)
            if delta is not None:
                signs = _signs(unit, participant.bits(unit, position), sample.runs)
                np.multiply(np.rint(delta * step), signs, out=there[who])
        plain[position] = here @ here.T
        met[position] = there @ there.T
    return plain * factor, met * factor


def _signs(unit: Unit, flips: bytes, runs: Sequence[Rect]) -> F32:
    """The signs of all runs of a sample together."""
    windows = (unit.window(flips, rect, 1.0) for rect in runs)
    return np.concatenate([window.values().reshape(-1) for window in windows])
