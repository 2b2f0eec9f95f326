"""Samples that the workers of a cluster look at, some units each: short reads of every input.

What a worker finds of a unit depends on nothing else, and is taken in by the order of the units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeVar

from randes_cli.build.crew.shard_tasks import Recipe, arrived, travelling
from randes_cli.build.draft import Draft
from randes_cli.build.inputs.participants import Deltas
from randes_cli.build.relate import Older, reopened
from randes_cli.build.samples.grams import Away, Terms, terms_of
from randes_cli.build.samples.sample import Sampled, gather_spreads
from randes_cli.cluster import Cluster, Held
from randes_cli.plan import Unit
from randes_cli.workers import Progress, no_progress

S = TypeVar("S")
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


def look_at_spreads(draft: Draft, task: _Look, progress: Progress) -> Sampled:
    units = [draft.units[number] for number in task.units]
    with travelling(draft.base):
        there = draft.deltas_from, draft.coming, units, no_progress
        found = gather_spreads(*there, ahead=task.ahead)
    progress("", len(units), 0)
    return found


class _Meeting(NamedTuple):
    """A draft, and the tasks of its old bank that those which come are compared with."""

    draft: Draft
    older: Sequence[Deltas]


@dataclass(frozen=True, slots=True)
class _MeetingRecipe:
    """How a worker opens one: older tasks' checkpoints where the driver has found them."""

    recipe: Recipe
    older: tuple[Older, ...]

    @contextmanager
    def opened(self) -> Iterator[_Meeting]:
        with self.recipe.opened() as draft, ExitStack() as stack:
            yield _Meeting(draft, reopened(draft, self.older, stack))


def look_at_meeting(opened: _Meeting, task: _Look, progress: Progress) -> list[Terms]:
    draft, older = opened
    units = [draft.units[number] for number in task.units]
    tasks = [*older, *draft.coming]
    with travelling(draft.base):
        made = list(terms_of(draft.deltas_from, tasks, units, len(older), ahead=task.ahead))
    progress("", len(units), 0)
    return made


def look_at_grams(draft: Draft, task: _Look, progress: Progress) -> list[Terms]:
    return look_at_meeting(_Meeting(draft, ()), task, progress)


@dataclass(frozen=True, slots=True)
class Looks:
    """The driver's side: has units looked at whose inputs are those of a draft."""

    cluster: Cluster
    recipe: Recipe
    held: Held[Draft]
    draft: Draft
    ahead: bool

    def spreads(self, units: Sequence[Unit], progress: Progress) -> Sampled:
        """`gather_spreads` of tasks that come."""
        runs = list(self._runs(units, 1))
        return Sampled.joined(self._do(look_at_spreads, self.held, runs, "sampling", progress))

    def beside(self, older: Sequence[Older]) -> Away:
        """`terms_of` tasks that come, beside those that a bank has, in order."""
        size = 16 * (len(older) + len(self.draft.coming)) ** 2

        def grams(units: Sequence[Unit], progress: Progress) -> Iterator[Terms]:
            runs = list(self._runs(units, size))
            if older:
                held = self.cluster.hold(_MeetingRecipe(self.recipe, tuple(older)))
                made = self._do(look_at_meeting, held, runs, "comparing", progress)
            else:
                made = self._do(look_at_grams, self.held, runs, "comparing", progress)
            yield from chain.from_iterable(made)

        return grams

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
        look: Callable[[S, _Look, Progress], T],
        held: Held[S],
        runs: Sequence[Sequence[Unit]],
        phase: str,
        progress: Progress,
    ) -> Iterator[T]:
        numbers = {unit: number for number, unit in enumerate(self.draft.units)}
        tasks = [_Look(tuple(numbers[unit] for unit in run), self.ahead) for run in runs]
        total = sum(map(len, runs))
        with arrived(self.draft.base):
            for _, found in self.cluster.map(
                look, held, tasks, phase=phase, total=total, progress=progress, in_order=True
            ):
                yield found
