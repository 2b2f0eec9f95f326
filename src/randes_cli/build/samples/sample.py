"""What samples tell of deltas before a pass: their spreads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.samples.looks import deltas_of, spreads_of
from randes_cli.build.samples.small import Spot, Spots, Spreads, small_lists, spreads
from randes_cli.core.arrays import F64
from randes_cli.errors import RandesError
from randes_cli.files.local.guard import reads_far
from randes_cli.files.source import Sample, Source
from randes_cli.plan import STEP_SAMPLE, Unit, sample_runs
from randes_cli.workers import Progress, no_progress, run_in_order, run_parallel

#: Small tensors that take less time one by one than as an array.
_FEW = 16
#: More threads wait for Python's lock more than they look.
_THREADS = 2


class Sampled(NamedTuple):
    """What samples tell of units, as columns: one row each.

    Attributes:
        rms: the largest root mean square of one participant's delta.
        peaks: the largest magnitude.
    """

    rms: F64
    peaks: F64

    @classmethod
    def supposed(cls, count: int) -> Sampled:
        """What to expect where no data are at hand: that all participants are alike."""
        return cls(np.ones(count), np.ones(count))

    @classmethod
    def joined(cls, parts: Iterable[Sampled]) -> Sampled:
        """Those of some units, then of others."""
        return cls(*map(np.concatenate, zip(cls.supposed(0), *parts, strict=True)))

    def at(self, rows: Sequence[int]) -> Sampled:
        return Sampled(self.rms[rows], self.peaks[rows])


def gather_spreads(
    base: Source | None,
    participants: Sequence[Participant],
    units: Sequence[Unit],
    progress: Progress,
    *,
    ahead: bool = False,
    threads: int = 1,
) -> Sampled:
    """RMS and peak of the participants' deltas on the step sample of every unit.

    `ahead`: reads wait for a network, and several are asked for at a time.
    """
    far = ahead or reads_far()
    count = 1 if far else min(threads, _THREADS, len(units) // _FEW)
    cuts = [len(units) * n // max(1, count) for n in range(count + 1)]
    halves = [_Half(base, participants, units[a:b], far=far) for a, b in pairwise(cuts)]
    total = sum(len(half.jobs) for half in halves)

    def one(_: None, half: _Half) -> int:
        half.gather(no_progress)
        return len(half.jobs)

    if count > 1:
        with suppress(RandesError):
            run_parallel(
                halves,
                lambda: None,
                one,
                threads=count,
                phase="sampling",
                total=total,
                progress=progress,
            )
            return Sampled.joined(half.sampled for half in halves)
    # One after the other: what is found first is what an error tells.
    whole = _Half(base, participants, units, far=far)
    whole.gather(progress)
    return whole.sampled


class _Half:
    """Some units, or all, and what one thread finds in them."""

    def __init__(
        self,
        base: Source | None,
        participants: Sequence[Participant],
        units: Sequence[Unit],
        *,
        far: bool,
    ) -> None:
        self.base, self.participants, self.far = base, participants, far
        self.jobs = list(small_lists(units, len(participants), STEP_SAMPLE[0], far=far))
        self._sums, self._made = dict[Unit, _Sums](), list[Sampled]()

    @property
    def sampled(self) -> Sampled:
        return Sampled.joined(self._made)

    def gather(self, progress: Progress) -> None:
        there = self.jobs, self._look, self._keep
        run_in_order(*there, far=self.far, phase="sampling", progress=progress)

    def _look(self, one: Unit | Spots) -> tuple[Spots | list[Spot], Spreads]:
        base, participants = self.base, self.participants
        if isinstance(one, Unit):
            return [Spot(one, n) for n in range(one.layers)], _spreads(base, participants, one)
        if one.single and len(one) < _FEW:
            each = [_spreads(base, participants, unit) for unit in one.units]
            return one, Spreads(*map(np.concatenate, zip(*each, strict=True)))
        return one, spreads(base, participants, one)

    def _keep(self, _: object, found: tuple[Spots | list[Spot], Spreads]) -> None:
        spots, (squares, counts, peaks) = found
        if isinstance(spots, Spots) and spots.single:
            means = np.divide(squares, counts, out=np.zeros_like(squares), where=counts > 0)
            self._made.append(Sampled(np.sqrt(means.max(axis=1, initial=0.0)), peaks))
            return
        rows, whole = zip(spots, squares.tolist(), counts.tolist(), peaks.tolist(), strict=True), []
        for (unit, position), energies, sizes, peak in rows:
            so_far = self._sums.setdefault(unit, _Sums(len(self.participants)))
            so_far.add(energies, sizes, peak)
            if position == unit.layers - 1:
                whole.append(self._sums.pop(unit).spread())
        if whole:
            self._made.append(Sampled(*np.array(whole).T))


class _Sums:
    """What the layers of a unit come to, one after the other."""

    def __init__(self, tasks: int) -> None:
        self.squares, self.counts, self.peak = [0.0] * tasks, [0] * tasks, 0.0

    def add(self, squares: Sequence[float], counts: Sequence[int], peak: float) -> None:
        self.peak = max(self.peak, peak)
        for task, (square, count) in enumerate(zip(squares, counts, strict=True)):
            self.squares[task] += square
            self.counts[task] += count

    def spread(self) -> tuple[float, float]:
        pairs = zip(self.squares, self.counts, strict=True)
        means = [total / count if count else 0.0 for total, count in pairs]
        return sqrt(max(means, default=0.0)), self.peak


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
