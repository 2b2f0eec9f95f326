"""Gram matrices of deltas on samples: made beside a pass, or after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from randes_cli.build.inputs.participants import Deltas
from randes_cli.build.samples.looks import deltas_of
from randes_cli.build.samples.small import (
    Spot,
    Spots,
    on_grid,
    products,
    small_grams,
    small_lists,
)
from randes_cli.build.samples.stand_ins import followers
from randes_cli.core.arrays import F32, F64, I64, firsts
from randes_cli.core.columns import Columns
from randes_cli.core.compiled.sample import signs_of
from randes_cli.core.shuffle import layer_types
from randes_cli.core.tails import means
from randes_cli.errors import RandesError
from randes_cli.files.local.guard import reads_far
from randes_cli.files.source import Sample, Source
from randes_cli.plan import GRAM_SAMPLE, Rect, Unit, sample_runs
from randes_cli.stats.grams import PackedGrams
from randes_cli.stats.stored import Cells, cells_of
from randes_cli.workers import Progress, no_progress, run_in_order

#: Bytes of deltas that are looked at at a time, about.
_HELD = 2**30
#: Of some tensors, by their names, what `gram` makes of each.
Terms: TypeAlias = tuple[Sequence[str], tuple[F64, F64, F64]]
#: Looks at units elsewhere, and gives their terms in order.
Away: TypeAlias = Callable[[Sequence[Unit], Progress], Iterator[Terms]]


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
        here, there = np.empty((2, tasks, sample.elements))
        scales = np.zeros((2, tasks))
        for who, delta in enumerate(deltas_of(sample, participants, name)):
            participant, moved = participants[who], unit.names[orders[who][position]]
            if delta is None:
                here[who] = 0.0
            else:
                scales[0, who] = on_grid(delta[None], there_is, here[who, None])[0]
                if who >= first:
                    tails[:, position, who] = means(here[who, None], scales[:1, who])[:, 0]
            units = there[who]
            if moved == name:
                units, scales[1, who] = here[who], scales[0, who]
            elif (other := next(deltas_of(sample, [participant], moved))) is not None:
                scales[1, who] = on_grid(other[None], there_is, there[who, None])[0]
            if scales[1, who]:
                signs = signs_on(unit, unit.flips(participant.seed, position), sample.runs)
                np.multiply(units, signs, out=there[who])
            else:
                there[who] = 0.0
        plain[position] = products(here[None], scales[:1], first)[0]
        met[position] = products(there[None], scales[1:], first)[0]
    return plain * factor, met * factor, tails


def signs_on(unit: Unit, flips: bytes, runs: Sequence[Rect]) -> F32:
    """±1 of these runs, one after the other."""
    places = [(rect.start, rect.elements) for rect in runs]
    found = signs_of(unit.signs, flips, unit.cols, unit.view, places)
    if found is not None:
        return found
    windows = (unit.window(flips, rect, 1.0) for rect in runs)
    return np.concatenate([window.values().reshape(-1) for window in windows])


def terms_of(
    base: Source | None,
    participants: Sequence[Deltas],
    units: Iterable[Unit],
    first: int,
    *,
    ahead: bool,
) -> Iterator[Terms]:
    """What the units come to, in order; `ahead`: of reads several are asked for at a time."""
    jobs, made = list(small_lists(units, len(participants), GRAM_SAMPLE[0], far=ahead)), []

    def look(one: Unit | Spots) -> Terms:
        return _look(base, participants, one, first)

    run_in_order(
        jobs,
        look,
        lambda _, found: made.append(found),
        far=ahead,
        phase="",
        progress=no_progress,
        most=_at_once(participants),
    )
    return iter(made)


def _at_once(participants: Sequence[Deltas]) -> int:
    """Units that are looked at at a time: each holds all its deltas twice, in float64."""
    return max(1, min(16, _HELD // (16 * GRAM_SAMPLE[0] * max(1, len(participants)))))


def _look(
    base: Source | None, participants: Sequence[Deltas], one: Unit | Spots, first: int
) -> Terms:
    if isinstance(one, Unit):
        return list(one.names), gram(base, participants, one, first)
    return one.names, small_grams(base, participants, one, first)


class Grams:
    """Gram matrices of some units, by cell: looked at one after the other.

    Deltas of different groups never meet: their entries are zero. Of the participants before
    `first` only the squares, and the products with those from `first` on, are computed. With
    them the `core.tails.means` of those from `first` on; `rows` are tensors' names. `away` looks at
    units elsewhere.
    """

    def __init__(
        self,
        base: Source | None,
        participants: Sequence[Deltas],
        units: Iterable[Unit],
        cells: Cells,
        rows: Sequence[str],
        first: int = 0,
        *,
        ahead: bool = False,
        stands: Mapping[Unit, Unit] = MappingProxyType({}),
        away: Away | None = None,
    ) -> None:
        self.base, self.participants, self.first = base, participants, first
        self.units, self.cells = list(units), cells
        self._rows, self._cell_of = Columns(rows, (), np.zeros(0, np.int64)), cells_of(rows, cells)
        self._alike, self._far = followers(stands), ahead or reads_far()
        groups = np.array([participant.group for participant in participants])
        self._same = groups[:, None] == groups
        tasks = len(participants)
        self._made = PackedGrams(len(cells), tasks)
        self._tails = np.zeros((4, len(rows), tasks - first))
        looked = _by_type(unit for unit in self.units if unit not in stands)
        self._looked, self._away = looked, away
        self._jobs = list(small_lists(looked, tasks, GRAM_SAMPLE[0], far=self._far))
        self._done, self._failed = 0, False

    def beside(self) -> Iterator[Callable[[], None]]:
        """Steps that may be taken, one after the other, while something else is done.

        What a step cannot read is left to `gather`, which says so when it is its turn.
        """
        while self._done < len(self._jobs) and not (self._far or self._away or self._failed):
            yield self._step

    def _step(self) -> None:
        job = self._jobs[self._done]
        try:
            found = self._look(job)
        except RandesError:
            self._failed = True
        else:
            self._keep(job, found)

    def gather(self, progress: Progress) -> tuple[F64, F64]:
        """All of them, cells × 2 × T × T: deltas as they are, and transformed; 4 × rows × T."""
        found, ends = self.packed(progress)
        return np.asarray(found), ends

    def packed(self, progress: Progress) -> tuple[PackedGrams, F64]:
        """The same, half of each matrix."""
        if self._away is not None:
            for names, found in self._away(self._looked, progress):
                self._add(names, range(len(names)), found)
            return self._made, self._tails
        left, far = self._jobs[self._done :], self._far
        run_in_order(
            left,
            self._look,
            self._keep,
            far=far,
            phase="comparing",
            progress=progress,
            most=_at_once(self.participants),
        )
        return self._made, self._tails

    def _look(self, one: Unit | Spots) -> Terms:
        return _look(self.base, self.participants, one, self.first)

    def _keep(self, one: Unit | Spots, found: Terms) -> None:
        terms, names = _with_followers(one, found[0], self._alike)
        self._add(names, terms, found[1])
        self._done += 1

    def _add(self, names: Sequence[str], terms: Sequence[int], found: tuple[F64, F64, F64]) -> None:
        """Add the term of each of these tensors where it belongs."""
        plain, transformed, ends = found
        rows = self._rows.at(names)
        self._tails[:, rows] = ends[:, terms, self.first :]
        at, halves, upper = self._cell_of[rows], self._made.halves, (slice(None), *self._made.upper)
        _add_in_order(halves[:, 0], at, plain[upper][terms])
        _add_in_order(halves[:, 1], at, (transformed * self._same)[upper][terms])


def _with_followers(
    one: Unit | Spots, names: Sequence[str], alike: Mapping[Unit, Sequence[Unit]]
) -> tuple[Sequence[int], Sequence[str]]:
    """Which term is added for which tensor: each one's own, and those that it stands for."""
    if not alike:
        return range(len(names)), names
    terms, made = list(range(len(names))), list(names)
    spots = [Spot(one, n) for n in range(one.layers)] if isinstance(one, Unit) else one
    for term, (unit, position) in enumerate(spots):
        others = alike.get(unit, ())
        terms += [term] * len(others)
        made += [other.names[position] for other in others]
    return terms, made


def _by_type(units: Iterable[Unit]) -> list[Unit]:
    """Units in the order of their types, those of one type by their names."""
    units, types = list(units), dict[str, list[Unit]]()
    for kind, unit in zip(layer_types([one.names[0] for one in units]), units, strict=True):
        types.setdefault(kind, []).append(unit)
    return [u for kind in types.values() for u in sorted(kind, key=attrgetter("names"))]


def _add_in_order(sums: F64, at: I64, terms: F64) -> None:
    """Add each term to the sum at its place: one after the other, for rounding tells."""
    order = np.argsort(at, kind="stable")
    starts = firsts(at[order])
    if len(starts) == len(at):
        sums[at] += terms
        return
    for mine in np.split(order, starts[1:]):
        place = at[mine[0]]
        run = np.concatenate([sums[place][None], terms[mine]])
        sums[place] = np.add.accumulate(run, axis=0)[-1]
