"""Samples that the workers of a cluster look at, some units each: short reads of every input.

What a worker finds of a unit depends on nothing else, and is taken in by the order of the units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from randes_cli.build.crew.shard_tasks import arrived, travelling
from randes_cli.build.draft import Draft
from randes_cli.build.samples.grams import Terms, terms_of
from randes_cli.build.samples.sample import Spread, gather_spreads
from randes_cli.cluster import Cluster, Held
from randes_cli.files.source import Source, ZeroBase
from randes_cli.plan import Unit
from randes_cli.workers import Progress, no_progress

T = TypeVar("T")

#: Bytes of Gram matrices that a task may come to, about.
_ROOM = 2**28
#: Layers of a task at the least where reads wait for a network: so many are asked for at a time.
_AHEAD = 16


@dataclass(frozen=True, slots=True)
class _Look:
    """Units by their number in the draft; `ahead`: of reads several are asked for at a time."""

    units: tuple[int, ...]
    ahead: bool


def look_at_spreads(draft: Draft, task: _Look, progress: Progress) -> list[Spread]:
    found, units = dict[Unit, Spread](), [draft.units[number] for number in task.units]
    with travelling(draft.base):
        base, use = _base(draft), found.__setitem__
        gather_spreads(base, draft.coming, units, use, no_progress, ahead=task.ahead)
    progress("", len(units), 0)
    return [found[unit] for unit in units]


def look_at_grams(draft: Draft, task: _Look, progress: Progress) -> list[Terms]:
    units = [draft.units[number] for number in task.units]
    with travelling(draft.base):
        made = list(terms_of(_base(draft), draft.coming, units, 0, ahead=task.ahead))
    progress("", len(units), 0)
    return made


def _base(draft: Draft) -> Source | None:
    return None if isinstance(draft.base, ZeroBase) else draft.base


@dataclass(frozen=True, slots=True)
class Looks:
    """The driver's side: has units looked at whose inputs are those of a draft."""

    cluster: Cluster
    held: Held[Draft]
    draft: Draft
    ahead: bool

    def spreads(
        self, units: Sequence[Unit], use: Callable[[Unit, Spread], None], progress: Progress
    ) -> None:
        """`gather_spreads` of tasks that come."""
        runs = list(self._runs(units, 1))
        for run, found in self._do(look_at_spreads, runs, "sampling", progress):
            for unit, spread in zip(run, found, strict=True):
                use(unit, spread)

    def grams(self, units: Sequence[Unit], progress: Progress) -> Iterator[Terms]:
        """`terms_of` tasks that come, in order."""
        runs = list(self._runs(units, 16 * len(self.draft.coming) ** 2))
        for _, found in self._do(look_at_grams, runs, "comparing", progress):
            yield from found

    def _runs(self, units: Sequence[Unit], size: int) -> Iterator[list[Unit]]:
        """Units in order, some for each worker, of which each layer comes to so many bytes."""
        layers = sum(unit.layers for unit in units)
        share = max(-(-layers // (4 * self.cluster.workers)), _AHEAD if self.ahead else 1)
        most = max(1, min(share, _ROOM // size))
        made, held = list[Unit](), 0
        for unit in units:
            if made and held + unit.layers > most:
                yield made
                made, held = [], 0
            made.append(unit)
            held += unit.layers
        if made:
            yield made

    def _do(
        self,
        look: Callable[[Draft, _Look, Progress], list[T]],
        runs: Sequence[Sequence[Unit]],
        phase: str,
        progress: Progress,
    ) -> Iterator[tuple[Sequence[Unit], list[T]]]:
        numbers = {unit: number for number, unit in enumerate(self.draft.units)}
        tasks = [_Look(tuple(numbers[unit] for unit in run), self.ahead) for run in runs]
        total = sum(map(len, runs))
        with arrived(self.draft.base):
            for at, found in self.cluster.map(
                look, self.held, tasks, phase=phase, total=total, progress=progress, in_order=True
            ):
                yield runs[at], found
