"""What samples tell of deltas: spreads before a pass, Gram matrices after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

import numpy as np

from randes_cli.build.participants import Deltas, Participant
from randes_cli.build.samples.looks import deltas_of
from randes_cli.build.samples.small import (
    Spot,
    Spreads,
    on_grid,
    products,
    small_grams,
    small_lists,
    spreads,
)
from randes_cli.build.samples.stand_ins import followers
from randes_cli.core.arrays import F32, F64
from randes_cli.core.shuffle import layer_type
from randes_cli.core.tails import means
from randes_cli.files.guard import reads_far
from randes_cli.files.source import Sample, Source
from randes_cli.plan import GRAM_SAMPLE, STEP_SAMPLE, Rect, Unit, sample_runs
from randes_cli.stats.stored import Cells
from randes_cli.workers import Progress, run_in_order


@dataclass(frozen=True, slots=True)
class Spread:
    """Sampled deltas of one unit.

    Attributes:
        rms: the largest root mean square of one participant's delta.
        peak: the largest magnitude.
    """

    rms: float
    peak: float


def gather_spreads(
    base: Source | None,
    participants: Sequence[Participant],
    units: Sequence[Unit],
    use: Callable[[Unit, Spread], None],
    progress: Progress,
    *,
    ahead: bool = False,
) -> None:
    """RMS and peak of the participants' deltas on the step sample of every unit, in order.

    `ahead`: reads wait for a network, and several are asked for at a time.
    """
    far, sums = ahead or reads_far(), dict[Unit, _Sums]()

    def look(one: Unit | list[Spot]) -> tuple[Sequence[Spot], Spreads]:
        if isinstance(one, Unit):
            return [Spot(one, n) for n in range(one.layers)], _spreads(base, participants, one)
        return one, spreads(base, participants, one)

    def keep(_: object, found: tuple[Sequence[Spot], Spreads]) -> None:
        spots, (squares, counts, peaks) = found
        rows = zip(spots, squares.tolist(), counts.tolist(), peaks.tolist(), strict=True)
        for (unit, position), energies, sizes, peak in rows:
            so_far = sums.setdefault(unit, _Sums(len(participants)))
            so_far.add(energies, sizes, peak)
            if position == unit.layers - 1:
                use(unit, sums.pop(unit).spread())

    jobs = list(small_lists(units, len(participants), STEP_SAMPLE[0], far=far))
    run_in_order(jobs, look, keep, far=far, phase="sampling", progress=progress)


class _Sums:
    """What the layers of a unit come to, one after the other."""

    def __init__(self, tasks: int) -> None:
        self.squares, self.counts, self.peak = [0.0] * tasks, [0] * tasks, 0.0

    def add(self, squares: Sequence[float], counts: Sequence[int], peak: float) -> None:
        self.peak = max(self.peak, peak)
        for task, (square, count) in enumerate(zip(squares, counts, strict=True)):
            self.squares[task] += square
            self.counts[task] += count

    def spread(self) -> Spread:
        pairs = zip(self.squares, self.counts, strict=True)
        means = [total / count if count else 0.0 for total, count in pairs]
        return Spread(sqrt(max(means, default=0.0)), self.peak)


def _spreads(base: Source | None, participants: Sequence[Participant], unit: Unit) -> Spreads:
    """`small.spreads` of the layers of a unit that is not its own sample."""
    shape = unit.layers, len(participants)
    squares, counts, peaks = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(unit.layers)
    sample = Sample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
    for position, name in enumerate(unit.names):
        for task, delta in enumerate(deltas_of(sample, participants, name)):
            if delta is None or not delta.size:
                continue
            peak = max(float(delta.max()), -float(delta.min()))
            peaks[position] = max(peaks[position], peak)
            squares[position, task] = np.square(delta, dtype=np.float64).sum()
            counts[position, task] = delta.size
    return Spreads(squares, counts, peaks)


def supposed_spread() -> Spread:
    """What to expect of a unit whose data are not at hand: that all participants are alike."""
    return Spread(1.0, 1.0)


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
    factor, there_is = unit.rows * unit.cols / max(1, sample.elements), np.ones(1, bool)
    for position, name in enumerate(unit.names):
        here, there = np.zeros((2, tasks, sample.elements))
        scales = np.zeros((2, tasks))
        for who, delta in enumerate(deltas_of(sample, participants, name)):
            participant, moved = participants[who], unit.names[orders[who][position]]
            if delta is not None:
                scales[0, who] = on_grid(delta[None], there_is, here[who, None])[0]
                if who >= first:
                    tails[:, position, who] = means(here[who, None], scales[:1, who])[:, 0]
            if moved == name:
                there[who], scales[1, who] = here[who], scales[0, who]
            elif (other := next(deltas_of(sample, [participant], moved))) is not None:
                scales[1, who] = on_grid(other[None], there_is, there[who, None])[0]
            if scales[1, who]:
                there[who] *= signs_on(unit, unit.flips(participant.seed, position), sample.runs)
        plain[position] = products(here[None], scales[:1], first)[0]
        met[position] = products(there[None], scales[1:], first)[0]
    return plain * factor, met * factor, tails


def signs_on(unit: Unit, flips: bytes, runs: Sequence[Rect]) -> F32:
    windows = (unit.window(flips, rect, 1.0) for rect in runs)
    return np.concatenate([window.values().reshape(-1) for window in windows])


def gather_grams(
    base: Source | None,
    participants: Sequence[Deltas],
    units: Iterable[Unit],
    cells: Cells,
    rows: Sequence[str],
    progress: Progress,
    first: int = 0,
    *,
    ahead: bool = False,
    stands: Mapping[Unit, Unit] = MappingProxyType({}),
) -> tuple[F64, F64]:
    """Gram matrices by cell, cells × 2 × T × T: deltas as they are, and transformed.

    Deltas of different groups never meet: their entries are zero. Of the participants before
    `first` only the squares, and the products with those from `first` on, are computed. With
    them the `core.tails.means` of those from `first` on, 4 × rows × T; `rows` are tensors' names.
    """
    where = {name: number for number, (_, names) in enumerate(cells) for name in names}
    row_of = {name: row for row, name in enumerate(rows)}
    tasks = len(participants)
    made = np.zeros((len(cells), 2, tasks, tasks))
    tails = np.zeros((4, len(rows), tasks - first))
    groups = np.array([participant.group for participant in participants])
    same = groups[:, None] == groups

    def look(one: Unit | list[Spot]) -> tuple[list[str], tuple[F64, F64, F64]]:
        if isinstance(one, Unit):
            return list(one.names), gram(base, participants, one, first)
        return [spot.name for spot in one], small_grams(base, participants, one, first)

    def keep(one: Unit | list[Spot], found: tuple[list[str], tuple[F64, F64, F64]]) -> None:
        names, (plain, transformed, ends) = found
        terms, names = _with_followers(one, names, alike)
        tails[:, [row_of[name] for name in names]] = ends[:, terms, first:]
        at = [where[name] for name in names]
        _add_in_order(made[:, 0], at, plain[terms])
        _add_in_order(made[:, 1], at, (transformed * same)[terms])

    far, alike = ahead or reads_far(), followers(stands)
    looked = [unit for unit in units if unit not in stands]
    jobs = list(small_lists(_by_type(looked), tasks, GRAM_SAMPLE[0], far=far))
    run_in_order(jobs, look, keep, far=far, phase="comparing", progress=progress)
    return made, tails


def _with_followers(
    one: Unit | list[Spot], names: list[str], alike: Mapping[Unit, Sequence[Unit]]
) -> tuple[list[int], list[str]]:
    """Which term is added for which tensor: each one's own, and those that it stands for."""
    terms, made = list(range(len(names))), list(names)
    spots = [Spot(one, n) for n in range(one.layers)] if isinstance(one, Unit) else one
    for term, (unit, position) in enumerate(spots if alike else ()):
        others = alike.get(unit, ())
        terms += [term] * len(others)
        made += [other.names[position] for other in others]
    return terms, made


def _by_type(units: Iterable[Unit]) -> list[Unit]:
    """Units in the order of their types, those of one type by their names."""
    types: dict[str, list[Unit]] = {}
    for unit in units:
        types.setdefault(layer_type(unit.names[0]), []).append(unit)
    return [u for kind in types.values() for u in sorted(kind, key=lambda unit: unit.names)]


def _add_in_order(sums: F64, at: Sequence[int], terms: F64) -> None:
    """Add each term to the sum at its place: one after the other, for rounding tells."""
    if len(set(at)) == len(at):
        sums[at] += terms
        return
    for place in dict.fromkeys(at):
        mine = [n for n, one in enumerate(at) if one == place]
        run = np.concatenate([sums[place][None], terms[mine]])
        sums[place] = np.add.accumulate(run, axis=0)[-1]
