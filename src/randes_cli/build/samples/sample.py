"""What samples tell of deltas before a pass: their spreads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from randes_cli.build.participants import Participant
from randes_cli.build.samples.looks import deltas_of, spreads_of
from randes_cli.build.samples.small import Spot, Spots, Spreads, small_lists, spreads
from randes_cli.files.guard import reads_far
from randes_cli.files.source import Sample, Source
from randes_cli.plan import STEP_SAMPLE, Unit, sample_runs
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

    def look(one: Unit | Spots) -> tuple[Spots | list[Spot], Spreads]:
        if isinstance(one, Unit):
            return [Spot(one, n) for n in range(one.layers)], _spreads(base, participants, one)
        return one, spreads(base, participants, one)

    def keep(_: object, found: tuple[Spots | list[Spot], Spreads]) -> None:
        spots, (squares, counts, peaks) = found
        if isinstance(spots, Spots) and spots.single:
            means = np.divide(squares, counts, out=np.zeros_like(squares), where=counts > 0)
            whole = np.sqrt(means.max(axis=1, initial=0.0)).tolist(), peaks.tolist()
            for unit, rms, peak in zip(spots.units, *whole, strict=True):
                use(unit, Spread(rms, peak))
            return
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
        found = spreads_of(sample, participants, name)
        if found is not None and sample.elements:
            squares[position], peaks[position] = found[0], found[1].max(initial=0.0)
            counts[position] = sample.elements
            continue
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
