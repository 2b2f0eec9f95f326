"""What samples and passes tell of deltas: spreads before a pass, norms and Gram matrices after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np

from randes_cli.build.participants import Participant
from randes_cli.core.arrays import F32, F64
from randes_cli.core.shuffle import layer_type
from randes_cli.files.source import Sample, Source
from randes_cli.plan import GRAM_SAMPLE, STEP_SAMPLE, Rect, Unit, sample_runs
from randes_cli.specs import TensorInfo
from randes_cli.stats.stored import Cells, norm_rows
from randes_cli.workers import Progress, run_serial


class Deltas(Protocol):
    """One task's deltas and transform, as sampling needs them."""

    @property
    def group(self) -> int:
        """The superposition that it is in."""

    @property
    def seed(self) -> int:
        """The task's seed."""

    @property
    def index(self) -> int:
        """The task's index."""

    def delta(self, base: Sample, name: str) -> F32 | None:
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
    sample = Sample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
    for name in unit.names:
        for task, participant in enumerate(participants):
            delta = participant.delta(sample, name)
            if delta is None or not delta.size:
                continue
            peak = max(peak, float(delta.max()), -float(delta.min()))
            totals[task] += float(np.square(delta, dtype=np.float64).sum())
            counts[task] += delta.size
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
    plain, transformed = np.zeros((2, unit.layers, tasks, tasks))
    orders = [unit.order(participant.seed, participant.index) for participant in participants]
    sample = Sample(base, sample_runs(unit.rows, unit.cols, GRAM_SAMPLE))
    factor = 4.0**exponent * (unit.rows * unit.cols / max(1, sample.elements))
    step = np.float32(2.0**-exponent)
    for position, name in enumerate(unit.names):
        units, flipped = np.zeros((2, tasks, sample.elements))
        for task, participant in enumerate(participants):
            moved = unit.names[orders[task][position]]
            delta = participant.delta(sample, name)
            if delta is not None:
                np.rint(delta * step, out=units[task])
            delta = delta if moved == name else participant.delta(sample, moved)
            if delta is not None:
                signs = _signs(unit, unit.flips(participant.seed, position), sample.runs)
                np.multiply(np.rint(delta * step), signs, out=flipped[task])
        plain[position] = units @ units.T
        transformed[position] = flipped @ flipped.T
    return plain * factor, transformed * factor


def _signs(unit: Unit, flips: bytes, runs: Sequence[Rect]) -> F32:
    """The signs of all runs of a sample together."""
    windows = (unit.window(flips, rect, 1.0) for rect in runs)
    return np.concatenate([window.values().reshape(-1) for window in windows])


def gather_grams(
    base: Source | None,
    participants: Sequence[Deltas],
    exponents: Mapping[Unit, int],
    cells: Cells,
    progress: Progress,
) -> F64:
    """Gram matrices by cell, cells × 2 × T × T: deltas as they are, and transformed.

    Deltas of different groups never meet: their entries are zero.
    """
    where = {name: number for number, (_, names) in enumerate(cells) for name in names}
    made = np.zeros((len(cells), 2, len(participants), len(participants)))
    types: dict[str, list[Unit]] = {}
    for unit in exponents:
        types.setdefault(layer_type(unit.names[0]), []).append(unit)
    same = np.array([[a.group == b.group for b in participants] for a in participants])

    def look(units: list[Unit]) -> None:
        for unit in sorted(units, key=lambda unit: unit.names):
            plain, transformed = gram(base, participants, unit, exponents[unit])
            for position, name in enumerate(unit.names):
                made[where[name], 0] += plain[position]
                made[where[name], 1] += transformed[position] * same

    run_serial(list(types.values()), look, phase="comparing", progress=progress)
    return made


def gather_norms(
    base: Sequence[TensorInfo],
    indices: Sequence[int],
    exponents: Mapping[Unit, int],
    squares: Mapping[tuple[int, str], Mapping[int, int]],
) -> F64:
    """‖Δ‖² of the rounded deltas, by superposable tensor of the base and task.

    `squares` are Σ q² by task's index, tensor and chunk.
    """
    exponent = {name: e for unit, e in exponents.items() for name in unit.names}
    rows = norm_rows(base)
    made = np.zeros((len(rows), len(indices)))
    for row, name in enumerate(rows):
        for column, index in enumerate(indices):
            total = sum(squares.get((index, name), {}).values())
            made[row, column] = total * 4.0 ** exponent.get(name, 0)
    return made
