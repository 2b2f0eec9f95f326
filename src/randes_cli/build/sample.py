"""What samples and passes tell of deltas: spreads before a pass, norms and Gram matrices after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import frexp, ldexp, sqrt
from typing import NamedTuple, Protocol

import numpy as np

from randes_cli.build.participants import Participant
from randes_cli.core.arrays import F32, F64, Bools
from randes_cli.core.energy import Energy
from randes_cli.core.grid import raised_exponent
from randes_cli.core.kernel import GRID_LIMIT, delta_energy
from randes_cli.core.shuffle import layer_type
from randes_cli.core.tails import means
from randes_cli.files.guard import reads_far
from randes_cli.files.source import Sample, Source
from randes_cli.plan import GRAM_SAMPLE, STEP_SAMPLE, Rect, Unit, sample_runs
from randes_cli.specs import TensorInfo
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Cells
from randes_cli.workers import Progress, run_in_order


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


class Measured(NamedTuple):
    """Lengths of new deltas, see `core.prediction.Lengths`.

    Attributes:
        norms: ‖Δ‖², tensors × T.
        rounded: ⟨Δ, q⟩ and ‖q‖², 2 × that.
    """

    norms: F64
    rounded: F64

    @property
    def changed(self) -> Bools:
        """Where there is any delta that a sample shows."""
        return np.asarray(self.norms > 0)


def supposed_lengths(
    base: Mapping[str, TensorInfo], participants: Sequence[Participant]
) -> Measured:
    """All participants alike, in all their tensors: nothing of their data is at hand."""
    rows = norm_rows(list(base.values()))
    norms = np.zeros((len(rows), len(participants)))
    for row, name in enumerate(rows):
        there = [name in participant.fit.superposed for participant in participants]
        norms[row, there] = base[name].elements
    return Measured(norms, np.stack([norms, norms]))


def sampled_lengths(
    base: Source | None,
    participants: Sequence[Participant],
    exponents: Mapping[Unit, int],
    rows: Sequence[str],
) -> Measured:
    """Lengths on the step sample, scaled to whole tensors; `rows` are the tensors' names.

    A step that the sample shows to be too fine counts as raised, as packing raises it.
    """
    norms = np.zeros((len(rows), len(participants)))
    rounded = np.zeros((2, *norms.shape))
    place = {name: row for row, name in enumerate(rows)}
    for unit, exponent in exponents.items():
        sample = Sample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
        found = [
            (place[name], who, delta)
            for name in unit.names
            for who, participant in enumerate(participants)
            if (delta := participant.delta(sample, name)) is not None and delta.any()
        ]
        peak = int(
            max((float(np.abs(delta).max()) for *_, delta in found), default=0.0) / 2.0**exponent
        )
        step = exponent if peak <= GRID_LIMIT else raised_exponent(exponent, peak)
        factor = unit.rows * unit.cols / max(1, sample.elements)
        for row, who, delta in found:
            energy = delta_energy(delta, step)
            norms[row, who] = factor * energy.whole(step)
            rounded[:, row, who] = factor * energy.kept(step), factor * energy.rounded(step)
    return Measured(norms, rounded)


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
) -> tuple[F64, F64, F64]:
    """Gram matrices of the deltas, as they are and transformed: two of K × T × T; and their tails.

    Entry (k, i, j) is ⟨Δ_i, Δ_j⟩ over the Gram sample of layer (or position) k, scaled to the
    whole tensor, each delta rounded to 2^18 units of its largest magnitude there. The sums are of
    integers below 2^53, so they are exact in float64, whatever the order. Products of two
    participants before `first` are left out. Tails, `core.tails.means` of K × T, are of those from
    `first` on.
    """
    tasks = len(participants)
    plain, met = np.zeros((2, unit.layers, tasks, tasks))
    tails = np.zeros((4, unit.layers, tasks))
    orders = [unit.order(participant.seed, participant.index) for participant in participants]
    sample = Sample(base, sample_runs(unit.rows, unit.cols, GRAM_SAMPLE))
    factor = unit.rows * unit.cols / max(1, sample.elements)
    for position, name in enumerate(unit.names):
        here, there = np.zeros((2, tasks, sample.elements))
        scales = np.zeros((2, tasks))
        for who, participant in enumerate(participants):
            moved = unit.names[orders[who][position]]
            delta = participant.delta(sample, name)
            if delta is not None:
                scales[0, who] = _on_grid(delta, here[who])
                if who >= first:
                    tails[:, position, who] = means(here[who], scales[0, who])
            delta = delta if moved == name else participant.delta(sample, moved)
            if delta is not None:
                scales[1, who] = _on_grid(delta, there[who])
                there[who] *= _signs(unit, unit.flips(participant.seed, position), sample.runs)
        plain[position] = _products(here, scales[0], first)
        met[position] = _products(there, scales[1], first)
    return plain * factor, met * factor, tails


def _signs(unit: Unit, flips: bytes, runs: Sequence[Rect]) -> F32:
    """The signs of all runs of a sample together."""
    windows = (unit.window(flips, rect, 1.0) for rect in runs)
    return np.concatenate([window.values().reshape(-1) for window in windows])


def gather_grams(
    base: Source | None,
    participants: Sequence[Deltas],
    units: Iterable[Unit],
    cells: Cells,
    progress: Progress,
    first: int = 0,
) -> tuple[F64, dict[str, F64]]:
    """Gram matrices by cell, cells × 2 × T × T: deltas as they are, and transformed.

    Deltas of different groups never meet: their entries are zero. Of the participants before
    `first` only the squares, and the products with those from `first` on, are computed. With
    them the `core.tails.means` of those from `first` on, by tensor.
    """
    where = {name: number for number, (_, names) in enumerate(cells) for name in names}
    made = np.zeros((len(cells), 2, len(participants), len(participants)))
    tails: dict[str, F64] = {}
    types: dict[str, list[Unit]] = {}
    for unit in units:
        types.setdefault(layer_type(unit.names[0]), []).append(unit)
    groups = np.array([participant.group for participant in participants])
    same = groups[:, None] == groups

    def look(unit: Unit) -> tuple[F64, F64, F64]:
        return gram(base, participants, unit, first)

    def keep(unit: Unit, found: tuple[F64, F64, F64]) -> None:
        plain, transformed, ends = found
        for position, name in enumerate(unit.names):
            tails[name] = ends[:, position, first:]
            made[where[name], 0] += plain[position]
            made[where[name], 1] += transformed[position] * same

    jobs = [u for kind in types.values() for u in sorted(kind, key=lambda unit: unit.names)]
    run_in_order(jobs, look, keep, far=reads_far(), phase="comparing", progress=progress)
    return made, tails


def gather_lengths(
    base: Sequence[TensorInfo],
    indices: Sequence[int],
    exponents: Mapping[Unit, int],
    energies: Mapping[tuple[int, str], Mapping[int, Energy]],
) -> Measured:
    """Lengths by superposable tensor of the base and task.

    `energies` are the sums over the deltas by task's index, tensor and chunk.
    """
    exponent = {name: e for unit, e in exponents.items() for name in unit.names}
    rows = {name: row for row, name in enumerate(norm_rows(base))}
    columns = {index: column for column, index in enumerate(indices)}
    norms = np.zeros((len(rows), len(indices)))
    rounded = np.zeros((2, *norms.shape))
    for (index, name), chunks in energies.items():
        if index not in columns:
            continue
        total, step = Energy(), exponent[name]
        for energy in chunks.values():
            total = total.plus(energy)
        row, column = rows[name], columns[index]
        norms[row, column] = total.whole(step)
        rounded[:, row, column] = total.kept(step), total.rounded(step)
    return Measured(norms, rounded)
