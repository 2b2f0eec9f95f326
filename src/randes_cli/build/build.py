"""The engine: a bank from an old one (or none), the tasks that come and those that leave.

Packing is adding to an empty bank; removing is adding with the sign turned. The new bank is
written beside the old one: what stays is copied, what changes is superposed onto the old
integers, and one commit puts it in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from randes_cli.build.altered import Altered, check_bytes
from randes_cli.build.convert import joined
from randes_cli.build.draft import Draft
from randes_cli.build.fill import add_files, fill
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.jobs.waiting import ALIGNED, WAITING
from randes_cli.build.measured import Measured, gather_lengths
from randes_cli.build.passes import Passes, TooNarrow, crew_of
from randes_cli.build.records import recorded_source, task_record
from randes_cli.build.relate import Relation, related
from randes_cli.build.room import estimate, new_sums, room_of
from randes_cli.build.samples.sample import Sampled, gather_spreads
from randes_cli.build.samples.stand_ins import joined_cells, stand_ins
from randes_cli.build.steps import Steps
from randes_cli.files.atomic import check_space, check_target
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.output import BankOutput, bank_output, passing_bank
from randes_cli.files.bank.records import BaseRecord, TaskRecord
from randes_cli.files.bank.shards import most_bytes
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.checkpoint.shared import content_fingerprint
from randes_cli.files.digests import zero_digests
from randes_cli.files.local.guard import reads_far
from randes_cli.files.location import Place, RemotePath
from randes_cli.plan import Unit
from randes_cli.specs import BaseStorage, RunOptions, TensorInfo, table_bytes
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.grams import flat_bytes
from randes_cli.stats.lengths import remembered
from randes_cli.stats.stored import Statistics, choose_cells, drop_tasks, empty_statistics
from randes_cli.workers import Progress, Workers

if TYPE_CHECKING:
    from randes_cli.build.crew.shard_tasks import Recipe

R = TypeVar("R")


@dataclass(frozen=True)
class Built:
    """A bank as it was written, or as it would be."""

    bytes: int
    manifest: Manifest
    statistics: Statistics


class Build:
    """One build: `sample` chooses steps, then `write` makes the bank (or `build.preview` none).

    `stored` are the old bank's statistics, of all its tasks; `most` bytes of a shard (None: as
    the old bank has it, or one file up to a size); `recipe` is how workers of a cluster, which the
    caller opens, draft the same.
    """

    def __init__(
        self,
        path: Place,
        draft: Draft,
        steps: Steps,
        run: RunOptions,
        progress: Progress,
        *,
        phase: str,
        force: bool,
        stored: Statistics | None = None,
        most: int | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        self.path, self.draft, self.steps, self.force = path, draft, steps, force
        self.phase, self.progress, self.most = phase, progress, most
        self.run, self.crew = run, crew_of(run, recipe)
        tensors = list(draft.base.tensors.values())
        layers = (unit.layers for unit in draft.units)
        self.workers = Workers(run, tensors, layers, far=reads_far())
        count = len(draft.start.tasks) + len(draft.coming)
        self.cells = choose_cells(draft.units, tensors, count)
        self.supposed = False
        self.stands: Mapping[Unit, Unit] = {}
        self.stored = stored or empty_statistics(tensors, self.cells)

    # Choosing steps

    def sample(self, *, supposed: bool = False, few: bool = False) -> None:
        """Sample the units that enter the bank, or come back to it.

        With `supposed` their data are not at hand: all tasks are taken to be alike. With `few` a
        bank is only looked at ahead: where there are very many deltas, see `stand_ins`.
        """
        draft, steps = self.draft, self.steps
        self.supposed = supposed
        known = dict.fromkeys(u for u in draft.entered if draft.kept and draft.standing(u))
        steps.keep(known)
        new = [unit for unit in draft.entered if not known or unit not in known]
        self.stands = stand_ins(new, draft.coming) if few and not supposed else {}
        if self.stands and draft.old is None:
            tensors = list(draft.base.tensors.values())
            self.stored = empty_statistics(tensors, joined_cells(self.cells, self.stands))
        stands = self.stands
        looked = [] if supposed else [one for one in new if one not in stands] if stands else new
        if self.crew is not None:
            found = self.crew.looks(draft).spreads(looked, self.progress)
        else:
            there, threads = (draft.deltas_from, draft.coming, looked), self.workers.threads
            found = gather_spreads(*there, self.progress, ahead=self.run.networked, threads=threads)
        if supposed:
            found = Sampled.supposed(len(new))
        elif stands:
            row = {unit: number for number, unit in enumerate(looked)}
            found = found.at([row[stands.get(unit, unit)] for unit in new])
        steps.sampled(new, found)

    def estimate(self, seal_bits: int | None = None) -> int:
        """Bytes of the bank, about: of an old one as it was, of a new one at the most."""
        if self.draft.old is not None:
            return self.draft.old.size
        return estimate(self.draft, self.steps, self.cells, seal_bits)

    @property
    def waiting_bytes(self) -> int:
        """Memory for sums that wait to be cut: of more groups more wait together."""
        sums = list(new_sums(self.draft, self.steps.ready, self.steps))
        room = sum(table_bytes(some) + ALIGNED * len(some) for some in sums)
        return min(self.workers.beside(WAITING * min(self.draft.start.groups, 4)), room)

    @property
    def read_bytes(self) -> int:
        """Bytes of the tensors of the tasks that come or leave."""
        both = [*self.draft.coming, *self.draft.leaving]
        return sum(table_bytes(one.source.tensors) for one in both)

    # Writing

    def write(self, report: Callable[[Built], R]) -> R:
        """Write the bank, and return what `report`, called before the commit, says of it.

        Raises what reading, fitting and writing raise; see `pack` and `add`.
        """
        return self.committed(self.estimate(), self._attempt, report)

    def committed(
        self,
        size: int,
        attempt: Callable[[Place, int | None, Callable[..., Any]], Any],
        report: Callable[..., R],
    ) -> R:
        """Have an attempt write the bank, of about `size` bytes; see `write`.

        Workers write no single file: of their shards one is made.
        """
        old, crew = self.draft.old, self.crew
        most = most_bytes(self.most, size, old.most if old else None)
        if crew is None or most is not None:
            told: R = self.retried(lambda: attempt(self.path, most, report))
            return told
        check_target(self.path, force=self.force)
        with passing_bank(self.path) as live:
            share = crew.cluster.share(size)
            made = self.retried(lambda: attempt(live, share, lambda *built: built))
            there = self.path, self.force, self.progress
            return joined(live, *there, lambda n: report(*(replace(one, bytes=n) for one in made)))

    def _attempt(self, path: Place, most: int | None, report: Callable[[Built], R]) -> R:
        with self._new_bank(path, most) as out, self.relation() as relation:
            room = room_of(self.draft, self.steps, self.cells)
            passes = self.passes(BankWriter(out, room), relation)
            passes.crew = self.crew and self.crew.afresh()
            fill(passes, self.phase)
            check_bytes(passes)
            manifest, statistics = self.gathered(passes)
            passes.tally.forget()
            return report(Built(passes.writer.finish(manifest), manifest, statistics))

    def passes(self, writer: BankWriter, relation: Relation | None) -> Passes:
        there = self.path, self.draft, self.steps, writer, self.workers
        return Passes(*there, self.progress, relation)

    def relation(self) -> AbstractContextManager[Relation | None]:
        """How the tasks that come relate; None where none does."""
        if not self.draft.coming:
            return nullcontext()
        units = () if self.supposed else self.steps.known
        there = self._kept(), self.draft, self.cells, units
        ahead = self.run.networked
        away = None if self.crew is None else self.crew.looks(self.draft).beside
        return related(*there, ahead=ahead, stands=self.stands, away=away)

    def _kept(self) -> Statistics:
        """The old bank's statistics, of forgotten tasks too."""
        draft = self.draft
        if draft.old is None:
            return self.stored
        kept = remembered(self.stored.known, draft.old.manifest, draft.start.forgotten)
        return replace(self.stored, known=replace(self.stored.known, forgotten=kept))

    def retried(self, attempt: Callable[[], R]) -> R:
        """What an attempt returns once nothing of it was found that calls for another."""
        while True:
            try:
                return attempt()
            except TooNarrow as retry:
                self.steps.widen(retry.units)
            except Altered as retry:
                coming = [one.keeping(retry.names.get(one.index, ())) for one in self.draft.coming]
                self.draft = replace(self.draft, coming=coming)

    def _sent_early(self, path: Place, most: int | None) -> int:
        """Bytes of shards of a new base that need no room here: in a store, layer by layer."""
        shuffled = any(unit.layers > 1 for unit in self.draft.units)
        if most is None or shuffled or self.draft.old or not isinstance(path, RemotePath):
            return 0
        return max(0, table_bytes(self.draft.base_table) - 4 * most)

    @contextmanager
    def _new_bank(self, path: Place, most: int | None) -> Iterator[BankOutput]:
        """The bank that takes its name, once there is room for it."""
        size, old = self.estimate(), self.draft.old
        more = sum(table_bytes(p.source.tensors) for p in self.draft.coming if old)
        stays = old.base_bytes if old and most == old.most and path == old.path else 0
        if self.crew is None or isinstance(path, Path):  # in a store each worker asks for its own
            check_space(path, size + more - stays - self._sent_early(path, most))
        with bank_output(path, force=self.force, most=most, progress=self.progress) as out:
            out.reserve(size)
            yield out

    # Finishing

    def gathered(self, passes: Passes) -> tuple[Manifest, Statistics]:
        """Write what all passes have shown, but for the manifest, which is returned."""
        draft, writer, tally = self.draft, passes.writer, passes.tally
        indices = [participant.index for participant in draft.coming]
        lengths = gather_lengths(draft.base.tensors, indices, self.steps.known, tally)
        statistics = self.statistics(lengths, passes.relation)
        kept = statistics.data()
        for key, data in kept.items():
            writer.add_whole(TensorInfo(key, "F64", data.shape), flat_bytes(data))
        manifest = replace(
            self._manifest(tally), cells=statistics.cells, estimated=statistics.estimated
        )
        if draft.old is None:
            manifest = replace(manifest, base=self._finish_new(passes))
        else:
            passes.take_over([key for key in draft.kept_statistics() if key not in kept])
        passes.copy_waiting()
        return with_defaults(manifest, statistics.known), statistics

    def _finish_new(self, passes: Passes) -> BaseRecord:
        """Add what a new bank has of its base, and its files; returns the base's record."""
        base, record = self.draft.base.tensors, self.draft.start.base
        zero = self.draft.deltas_from is None
        digests = zero_digests(base) if zero else passes.tally.joined("base", base)
        if record.storage is BaseStorage.reference:
            passes.writer.add_whole(self.draft.base_digests(), b"".join(digests.values()))
        add_files(passes)
        return replace(record, fingerprint=content_fingerprint(self.draft.base, digests))

    def statistics(self, lengths: Measured, relation: Relation | None) -> Statistics:
        if relation is None:
            return drop_tasks(self._kept(), {task.index for task in self.draft.gone})
        units = () if self.supposed else self.steps.known
        return relation.statistics(lengths, units, self.progress)

    def _manifest(self, tally: Tally) -> Manifest:
        """The manifest with the tasks that came and every step that is or was in the bank."""
        start, coming, base = self.draft.start, self.draft.coming, self.draft.base.tensors
        if not coming:
            return start
        records = [
            task_record(base, p, tally, source=recorded_source(p.source.source, self.path))
            for p in coming
        ]
        return self.with_records(records)

    def with_records(self, records: Sequence[TaskRecord]) -> Manifest:
        """The manifest with these records of the tasks that come, and the steps."""
        start, coming = self.draft.start, self.draft.coming
        steps, widths = self.steps.tables(self.draft.units)
        return replace(
            start.with_tasks([*start.tasks, *records]),
            next_index=max([start.next_index, *(1 + p.index for p in coming)]),
            steps=steps,
            widths=widths,
        )
