"""One edit of a bank: which tasks leave and come, and the draft of the bank that follows.

A worker of a cluster does the same edit from the same words, and has the same draft.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from randes_cli.build.build import Build, Built
from randes_cli.build.draft import Draft
from randes_cli.build.inputs.participants import Participant
from randes_cli.build.inputs.tasks import open_coming, reopen
from randes_cli.build.outlook.preview import preview, sampled
from randes_cli.build.outlook.twins import twins
from randes_cli.build.outlook.unsuited import unsuited
from randes_cli.build.records import task_summary
from randes_cli.build.steps import Steps, given_steps
from randes_cli.cluster import machines
from randes_cli.errors import MismatchError, MissingError, UsageError, counted
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import (
    bank_base,
    bank_source,
    find_recorded,
    found_base,
    found_recorded,
)
from randes_cli.files.location import Place, absolute, absolute_source
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.source import Source
from randes_cli.fit import fit_task
from randes_cli.limits import LIMITS, StrPath, as_source
from randes_cli.reports import EditReport
from randes_cli.specs import BaseStorage, EditOptions, RunOptions, TaskInput, task_seed
from randes_cli.stats.base_length import base_inside, lengths_beside
from randes_cli.stats.room import room
from randes_cli.stats.stored import stored_statistics
from randes_cli.stats.summaries import bank_summaries, mean_cosine, summaries
from randes_cli.workers import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit is asked for: tasks that go (with their checkpoints), and such that come."""

    gone: tuple[str, ...]
    checkpoints: Mapping[str, StrPath]
    forget: bool
    tasks: tuple[TaskInput, ...] = ()


@dataclass(frozen=True, slots=True)
class EditRecipe:
    """How a worker drafts what an edit makes. `digest` is that of the bank's table of digests."""

    bank: Place
    digest: bytes
    options: EditOptions
    change: Change

    @classmethod
    def of(cls, old: BankFile, options: EditOptions, change: Change) -> EditRecipe:
        """The same edit, whatever folder a worker is in."""
        named, checkpoints = change.checkpoints, dict[str, StrPath]()
        for name in () if change.forget else change.gone:
            found = found_recorded(old.task(name).source, old.path) if name not in named else None
            checkpoints |= {} if found is None else {name: found}
        checkpoints |= {k: absolute_source(as_source(v)) for k, v in named.items()}
        tasks = tuple(replace(one, source=absolute_source(one.source)) for one in change.tasks)
        return cls(
            absolute(old.path),
            old.store.fingerprint,
            replace(options, base=found_base(old, options.base)),
            Change(change.gone, checkpoints, change.forget, tasks),
        )

    @contextmanager
    def opened(self) -> Iterator[Draft]:
        """Open the bank and the inputs. Raises MismatchError where the bank is another here."""
        with ExitStack() as stack:
            old = stack.enter_context(BankFile(self.bank))
            if old.store.fingerprint != self.digest:
                raise MismatchError(f"{self.bank}: another bank on a worker than on this machine")
            edit = Edit(old, stack, self.options, RunOptions(), no_progress)
            edit.apply(self.change)
            yield edit.draft()


class Edit:
    """One edit: the tasks that leave and come, and the manifest that the new bank starts from."""

    def __init__(
        self,
        old: BankFile,
        stack: ExitStack,
        options: EditOptions,
        run: RunOptions,
        progress: Progress,
    ) -> None:
        self.old, self.stack, self.options, self.run = old, stack, options, run
        self.progress = progress
        self.start: Manifest = old.manifest
        self.stored = stored_statistics(old)
        self.notes: list[str] = []
        self.before = bank_summaries(old, self.stored)
        self.units = list(dict.fromkeys(old.units.values()))
        self.base: Source | None = None
        self.coming: list[Participant] = []
        self.leaving: list[Participant] = []
        self.gone: Sequence[TaskRecord] = ()
        self.recipe: EditRecipe | None = None

    def apply(self, change: Change) -> None:
        """Take tasks out and open those that come."""
        gone = [self.old.task(name) for name in change.gone]
        if self.run.engine == "ray":
            self.recipe = EditRecipe.of(self.old, self.options, change)
        self.leave(gone, change.checkpoints, forget=change.forget)
        if change.tasks:
            self.come(change.tasks, {task.name: task.group for task in gone})

    def source(self) -> Source:
        """The base, opened when first asked for."""
        if self.base is None:
            leave = self.options.opening.allow_pickle
            opened = self.stack.enter_context(
                bank_base(self.old, self.options.base, allow_pickle=leave)
            )
            self.base = bank_source(self.old, opened)
        return self.base

    def leave(
        self, gone: Sequence[TaskRecord], checkpoints: Mapping[str, StrPath], *, forget: bool
    ) -> None:
        """Take these tasks out of the manifest and, unless they are forgotten, of the sums."""
        strange = next((name for name in checkpoints if name not in {r.name for r in gone}), None)
        if strange is not None:
            raise UsageError(f"--checkpoint {strange}=…: no task of that name goes")
        if not gone:
            return
        self.gone = gone
        indices = {record.index for record in gone}
        left = [task for task in self.start.tasks if task.index not in indices]
        if not forget:
            for record in self._subtractable(left):
                self.leaving.append(self._leaving(record, checkpoints.get(record.name)))
        start = self.start.with_tasks(left)
        if forget:
            more = tuple((record.index, record.group) for record in gone)
            start = replace(start, forgotten=tuple(sorted(start.forgotten + more)))
        held = {task.group for task in left} | {group for _, group in start.forgotten}
        sealed = {group: seal for group, seal in start.sealed.items() if group in held}
        self.start = start.with_sealed(sealed)

    def _subtractable(self, left: Sequence[TaskRecord]) -> list[TaskRecord]:
        """The tasks whose deltas have to be subtracted: not those whose whole sealed group goes.

        Raises MismatchError for a task that leaves others behind in a sealed group.
        """
        kept = {task.group for task in left} | {group for _, group in self.start.forgotten}
        sealed = self.start.sealed
        stuck = next((r for r in self.gone if r.group in sealed and r.group in kept), None)
        if stuck is not None:
            raise MismatchError(
                f"{self.old.path}: {stuck.name} is in group {stuck.group}, which is sealed at "
                f"{counted(sealed[stuck.group].bits, 'bit')}: the sum was rounded, so a delta "
                "cannot be taken out exactly; remove the whole group, pack anew, or say --forget"
            )
        return [record for record in self.gone if record.group not in sealed]

    def _leaving(self, record: TaskRecord, given: StrPath | None) -> Participant:
        """The participant that takes a task's deltas out again."""
        path = find_recorded(record.source, self.old.path) if given is None else as_source(given)
        if path is None:
            raise MissingError(
                f"{self.old.path}: removing {record.name} needs its checkpoint, and "
                f"{record.source!r} is not beside the bank; say --checkpoint PATH, or --forget"
            )
        leave = self.options.opening.recorded(record.pickle, record.layout)
        opened = reopen(self.stack, record.name, path, self.source(), leave)
        opened = opened.under(record.ties)
        tensors = opened.source.tensors
        whole = fit_task(self.source().tensors, tensors, self.old.units)
        then = {n: t for n, t in tensors.items() if t.shape == record.shapes.get(n)}  # resized
        both = {**whole.superposed, **then}
        changed = {n: t for n, t in both.items() if n not in record.unchanged}
        rest = {name: "" for name in tensors if name not in changed}
        fit = replace(whole, superposed=changed, exact=rest)
        return Participant(opened, fit, record.index, record.seed, record.group, sign=-1)

    def come(self, tasks: Sequence[TaskInput], places: Mapping[str, int]) -> None:
        """Open tasks that enter the bank; `places` are the groups of those that they replace."""
        names, options = self.old.units.keys(), self.options
        if options.merge_adapters and self.start.base.storage is BaseStorage.zero:
            raise UsageError(f"{self.old.path}: holds adapters as they are; there is no base")
        if self.start.next_index + len(tasks) > LIMITS["next_index"].most:
            raise MismatchError(f"{self.old.path}: no index is left for a new task; pack it anew")
        asked = self.start.transform.exact
        for index, task in enumerate(tasks, self.start.next_index):
            opened, fit = open_coming(
                self.stack, task, self.source(), names, asked, options.opening
            )
            group, seed = self._group_for(task, places.get(task.name)), self.start.seed + index
            if self.start.version > 1:
                seed = task_seed(self.start.seed, index)
            self.coming.append(Participant(opened, fit, index, seed, group))

    def _group_for(self, task: TaskInput, place: int | None) -> int:
        """The group that a task enters: the one it names or replaces, else the emptiest.

        Sealed groups take no more tasks; where all are sealed, a new one opens.
        """
        groups, sealed = self.start.groups, self.start.sealed
        if task.group is not None:
            if task.group >= groups:
                raise UsageError(
                    f"{task.name}@{task.group}: {self.old.path} has "
                    + (f"groups 0 to {groups - 1}" if groups > 1 else "one group, 0")
                )
            if task.group in sealed:
                raise MismatchError(
                    f"{task.name}@{task.group}: that group is sealed at "
                    f"{counted(sealed[task.group].bits, 'bit')} and read-only; leave the group out"
                )
            return task.group
        if place is not None and place not in sealed:
            return place
        if len(sealed) == groups:
            self.start = replace(self.start, groups=groups + 1)
            shares = self.start.shares
            self.start = self.start.with_shares({**shares, groups: shares.get(groups - 1, 1)})
        held = Counter(record.group for record in self.start.tasks)
        held.update(group for _, group in self.start.forgotten)
        held.update(participant.group for participant in self.coming)
        live = (group for group in range(self.start.groups) if group not in sealed)
        return min(live, key=lambda group: (held[group], group))

    def draft(self) -> Draft:
        base = self.base or bank_source(self.old, None)
        files = {f.digest: f for p in self.coming for f in p.opened.beside.side_files.values()}
        return Draft(
            self.old, base, self.start, self.units, self.coming, self.leaving, self.gone, files
        )

    def report(self, phase: str) -> EditReport:
        """Make the new bank, or with a dry run none, and tell what became of it."""
        manifest, options = self.old.manifest, self.options
        given = given_steps(self.units, manifest.steps, manifest.widths, manifest.bits)
        if not options.dry_run:
            self.stack.enter_context(machines(self.run))
        build = Build(
            self.old.path,
            self.draft(),
            Steps(given, bits=manifest.bits, capacity=manifest.capacity, fixed=True),
            self.run,
            self.progress,
            phase=phase,
            force=True,
            stored=self.stored,
            most=self.options.max_shard_size,
            recipe=None if options.dry_run else self.recipe,
        )
        build.sample()
        merged = sum(isinstance(one.source, MergedAdapter) for one in self.coming)
        kept = bool(self.coming) and manifest.base.storage is BaseStorage.zero
        coming = {one.index: one for one in self.coming}
        unsure = sampled(build) if options.dry_run and self.coming else ""

        def report(built: Built) -> EditReport:
            there = built.manifest, built.statistics
            found = summaries(*there, lengths_beside(*there, base_inside(self.old)), dry_run=unsure)
            cosine = mean_cosine(found)
            return EditReport(
                bank=str(self.old.path),
                dry_run=options.dry_run,
                bytes_before=self.old.size,
                bytes_after=built.bytes,
                read_bytes=build.read_bytes,
                buffer_bytes=build.workers.buffer_bytes,
                before=self.before,
                after=tuple(
                    task_summary(coming[task.index], task) if task.index in coming else task
                    for task in found
                ),
                estimated=tuple(sorted(built.statistics.estimated)),
                adapters="kept" if kept else "merged" if merged else None,
                merged=merged,
                room=room(built.manifest),
                kept_exactly={one.name: one.kept_exactly() for one in build.draft.coming},
                notes=(*self.notes, *twins(built, build.draft, dry_run=options.dry_run)),
                unsuited=unsuited(build.draft, built, built.bytes, cosine) if coming else (),
            )

        return report(preview(build)) if options.dry_run else build.write(report)
