"""Looks at a fixed sample of each tensor: the step before packing, Gram matrices after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.signs import sign_window
from randes_cli.ops.superpose import Participant, Source
from randes_cli.plan import GRAM_SAMPLE, STEP_SAMPLE, Rect, Unit, sample_runs

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class Deltas(Protocol):
    """One task's deltas and transform, as sampling needs them."""

    def order(self, unit: Unit) -> list[int]:
        """σ of the task on a unit."""

    def bits(self, unit: Unit, position: int) -> bytes:
        """The packed sign bits of the task at a position of a unit."""

    def delta(self, base: Source | None, name: str, rect: Rect) -> F32 | None:
        """The task's delta on a rectangle of a tensor, None where it has none."""


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
    peak, squares = 0.0, []
    runs = sample_runs(unit.rows, unit.cols, STEP_SAMPLE)
    for participant in participants:
        total, count = 0.0, 0
        for name in unit.names:
            for rect in runs:
                delta = participant.delta(base, name, rect)
                if delta is None or not delta.size:
                    continue
                peak = max(peak, float(np.abs(delta).max()))
                total += float(np.square(delta, dtype=np.float64).sum())
                count += delta.size
        squares.append(total / count if count else 0.0)
    return Spread(sqrt(max(squares, default=0.0)), peak, tuple(squares))


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
    runs = sample_runs(unit.rows, unit.cols, GRAM_SAMPLE)
    sampled = sum(rect.elements for rect in runs)
    factor = 4.0**exponent * (unit.rows * unit.cols / max(1, sampled))
    for position, name in enumerate(unit.names):
        flips = [participant.bits(unit, position) for participant in participants]
        for rect in runs:
            here = np.zeros((tasks, rect.elements))
            there = np.zeros((tasks, rect.elements))
            for who, participant in enumerate(participants):
                step = np.float32(2.0**-exponent)
                moved = unit.names[orders[who][position]]
                delta = participant.delta(base, name, rect)
                if delta is not None:
                    here[who] = np.rint(delta * step)
                delta = delta if moved == name else participant.delta(base, moved, rect)
                if delta is not None:
                    signs = sign_window(unit.signs, flips[who], rect.rows, rect.cols, scale=1.0)
                    there[who] = np.rint(delta * step) * signs.reshape(-1)
            plain[position] += here @ here.T
            met[position] += there @ there.T
    return plain * factor, met * factor
