"""Passes over the units of a bank under way: jobs, exact tensors and copies for all threads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import Copy, place_copies
from randes_cli.build.jobs.exact import Exact
from randes_cli.build.jobs.work import Attempt, Bench, UnitWork, Work
from randes_cli.build.relate import Relation
from randes_cli.build.steps import BeyondGrid, Overflowing, Steps, no_room
from randes_cli.cluster import Cluster
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.bank.keys import base_key
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.base import BankBase
from randes_cli.files.location import Place
from randes_cli.plan import Unit
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, Workers

if TYPE_CHECKING:
    from randes_cli.build.crew.crew import Crew
    from randes_cli.build.crew.shard_tasks import Recipe


class TooNarrow(Exception):
    """These units passed the range of 8 bits."""

    def __init__(self, units: set[Unit]) -> None:
        super().__init__(units)
        self.units = units


def crew_of(run: RunOptions, recipe: Recipe | None) -> Crew | None:
    """The workers of a cluster, which the caller has open; None where this machine works alone."""
    if recipe is None or run.engine != "ray":
        return None
    from randes_cli.build.crew.crew import Crew

    return Crew(Cluster(run), recipe, run)


class Passes(Attempt):
    """The passes of one attempt to write a bank, and what they found.

    Attributes:
        crew: gives work to other machines; None: all is done here.
        relation: what samples tell of the tasks, looked at beside a pass.
    """

    def __init__(
        self,
        path: Place,
        draft: Draft,
        steps: Steps,
        writer: BankWriter,
        workers: Workers,
        progress: Progress,
        relation: Relation | None,
    ) -> None:
        super().__init__(path, draft, steps, progress, writer)
        self.bench = Bench(draft, writer, self.tally, workers, progress)
        self.crew: Crew | None = None
        self.relation = relation
        self._waiting: list[Copy] = []

    def take_over(self, keys: Iterable[str]) -> None:
        """Place tensors of the old bank; their bytes are copied by the next pass."""
        if self.draft.old is not None:
            self._waiting += place_copies(self.writer, self.draft.old, keys)

    def copy_waiting(self) -> None:
        """Copy what was placed since the last pass."""
        for copy in self._waiting:
            copy.into(self.writer)
        self._waiting = []

    def run(
        self,
        units: Sequence[Unit],
        exact: Sequence[Exact],
        phase: str,
        *,
        write_base: bool = False,
    ) -> None:
        """Run every job of these units, the exact tensors, and the copies that wait."""
        given, ready = self.steps.given, self.steps.ready
        parts = [self.draft.parts(u, ready.get(u), given.get(u)) for u in units]
        chosen = [UnitWork(unit, some) for unit, some in zip(units, parts, strict=True)]
        work = Work(chosen, list(exact), self._waiting)
        self._waiting = []
        if self.crew is not None:
            work, write_base = self.crew.send(self, work, phase, write_base=write_base), False
        beside = () if self.relation is None else self.relation.beside()
        self.bench.do(work, phase, write_base=write_base, beside=beside)
        self._check_base()

    def _check_base(self) -> None:
        """Whether the base that deltas were taken from is the one that the old bank records."""
        base, old = self.draft.base, self.draft.old
        if old is None or not isinstance(base, BankBase):
            return
        chunks = {n: f for (owner, n), f in self.tally.digests.items() if owner == "base"}
        whole = {name: {0: value} for name, value in self.tally.small("base").items()}
        for name, found in {**whole, **chunks}.items():
            if all(base.digest(name, n) == v for n, v in found.items()):
                continue
            if base.outside is not None:
                raise MismatchError(
                    f"{base.source}: tensor {name!r} has other values than the base"
                )
            raise old.damaged(base_key(name))

    def settle(self) -> None:
        """Coarsen new superpositions until they fit; refuse an overflow of an old one."""
        steps = self.steps
        while peaks := self.tally.take_peaks():
            full = steps.overflowing(peaks)
            if full is not None:
                raise self._no_room(Overflowing(full, peaks[full], steps.width(full)))
            narrow = steps.narrow(peaks)
            if narrow:
                raise TooNarrow(narrow)
            try:
                steps.coarsen(peaks)
            except BeyondGrid as found:
                raise self._no_room(found) from None
            self.run(list(peaks), [], "coarser steps")

    def _no_room(self, error: BeyondGrid | Overflowing) -> CheckpointError | MismatchError:
        base = self.draft.base.source if self.draft.old is None else None
        return no_room(error, self.path, base)
