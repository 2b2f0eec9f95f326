"""Removing: deltas subtracted from the sums that stay, records and exact tensors dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from randes_cli.build.editing import Editing
from randes_cli.build.exact import Copy
from randes_cli.build.inputs import reopen
from randes_cli.build.strips import Participant, Superposer, sum_groups
from randes_cli.errors import MismatchError, MissingError
from randes_cli.files.bank_keys import file_key, own_key, sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import fingerprint
from randes_cli.files.manifest import Manifest
from randes_cli.files.records import TaskRecord
from randes_cli.plan import Unit, fit_task
from randes_cli.read.retrieve import find_recorded
from randes_cli.reports import EditReport
from randes_cli.stats.stored import drop_tasks


class Removing(Editing):
    """One `remove` under way."""

    def subtractable(self, records: Sequence[TaskRecord]) -> list[TaskRecord]:
        """The tasks whose deltas have to be subtracted: not those whose whole sealed group goes.

        Raises MismatchError for a task that leaves others behind in a sealed group.
        """
        gone = {record.index for record in records}
        kept = {task.group for task in self.manifest.tasks if task.index not in gone}
        kept |= {group for _, group in self.manifest.forgotten}
        sealed = self.manifest.sealed
        stuck = next((r for r in records if r.group in sealed and r.group in kept), None)
        if stuck is not None:
            raise MismatchError(
                f"{self.old.path}: {stuck.name} is in group {stuck.group}, which is sealed at "
                f"{sealed[stuck.group].bits} bits: the sum was rounded, so a delta cannot be taken "
                "out exactly; remove the whole group, pack anew, or say --forget"
            )
        return [record for record in records if record.group not in sealed]

    def leaving(self, record: TaskRecord, given: str | None) -> Participant:
        """The participant that takes a task's deltas out again."""
        path = given or find_recorded(record.source, self.old.path)
        if path is None:
            raise MissingError(
                f"{self.old.path}: removing {record.name} needs its checkpoint, and "
                f"{record.source!a} is not beside the bank; say --checkpoint PATH, or --forget"
            )
        checkpoint = reopen(self.stack, path, self.source(), self.options.opening)
        whole = fit_task(self.named, checkpoint.tensors, self.unit_of)
        changed = {n: t for n, t in whole.superposed.items() if n not in record.unchanged}
        rest = {name: "" for name in checkpoint.tensors if name not in changed}
        fit = replace(whole, superposed=changed, exact=rest)
        return Participant(
            record.name, record.index, record.seed, checkpoint, fit, sign=-1, group=record.group
        )

    def remove(self, records: Sequence[TaskRecord], *, forget: bool) -> EditReport:
        """Write the bank without these tasks; `participants` are those that are subtracted."""
        gone = {record.index for record in records}
        left = [task for task in self.manifest.tasks if task.index not in gone]
        manifest = self.manifest.with_tasks(left)
        if forget:
            more = tuple((record.index, record.group) for record in records)
            manifest = replace(manifest, forgotten=tuple(sorted(manifest.forgotten + more)))
        held = {task.group for task in left} | {group for _, group in manifest.forgotten}
        sealed = {group: seal for group, seal in manifest.sealed.items() if group in held}
        manifest = manifest.with_sealed(sealed)
        statistics = drop_tasks(self.stored, gone)
        manifest = replace(manifest, cells=statistics.cells, estimated=statistics.estimated)
        if self.options.dry_run:
            return self._report(manifest, statistics, self.old.header.file_size)
        if self.participants:
            self.source()
        with self._new_file() as file:
            writer = BankWriter(file, self._candidates())
            self._copy_base(writer)
            subtracted = [] if forget else self.subtractable(records)
            self._subtract(writer, manifest, subtracted)
            owned = {own_key(r.name, n) for r in records for n in self._owned(r)}
            self._copy_kept(writer, owned | self._unused_files(manifest))
            size = self._finish(writer, manifest, statistics)
        return self._report(manifest, statistics, size)

    def _unused_files(self, manifest: Manifest) -> set[str]:
        """Side files that nothing in `manifest` names."""
        records = [manifest.base.files, *(task.files for task in manifest.tasks)]
        used = {file_key(content) for files in records for content in files.values()}
        return {key for key in self.old.header.tensors if key.startswith("files/")} - used

    def _owned(self, record: TaskRecord) -> list[str]:
        return [*record.own, *record.shapes]

    def _subtract(
        self, writer: BankWriter, manifest: Manifest, records: Sequence[TaskRecord]
    ) -> None:
        """Place and compute the sums that stay; those that nobody changed any more go."""
        wanted = self._wanted(manifest)
        left = {unit: sum_groups(unit, self.participants) for unit in self.units}
        work: list[tuple[int, Unit]] = []
        for group, unit in self._places():
            if sum_key(group, unit.names[0]) not in self.old or (group, unit) not in wanted:
                continue
            if group in left[unit]:
                work.append((group, unit))
                self._place_sum(writer, group, unit)
            else:
                self._copy_sum(writer, group, unit)
        self._copy_sealed(writer, manifest.sealed)
        engine = self._engine(writer)
        units = list(dict.fromkeys(unit for _, unit in work))
        self._pass(engine, units, self._read_only(set(work)), "removing")
        self._settle(engine)
        self._check_fingerprints(engine, records)

    def _wanted(self, manifest: Manifest) -> set[tuple[int, Unit]]:
        """Superpositions that a remaining task changed (or a forgotten one may have)."""
        wanted = {(group, unit) for _, group in manifest.forgotten for unit in self.units}
        for task in manifest.tasks:
            names = set(self.unit_of) - task.unchanged - task.missing - set(task.own)
            wanted |= {(task.group, self.unit_of[name]) for name in names}
        return wanted

    def _read_only(self, work: set[tuple[int, Unit]]) -> list[Copy]:
        """Reads of the tensors that no job reads: the fingerprint needs every byte."""
        return [
            Copy(participant.checkpoint, name, None, who)
            for who, participant in enumerate(self.participants)
            for name in participant.checkpoint.tensors
            if name not in participant.fit.superposed
            or (participant.group, self.unit_of[name]) not in work
        ]

    def _check_fingerprints(self, engine: Superposer, records: Sequence[TaskRecord]) -> None:
        for who, participant in enumerate(self.participants):
            tensors = participant.checkpoint.tensors
            found = fingerprint(tensors, engine.tally.joined(who, tensors))
            if found != records[who].fingerprint:
                raise MismatchError(
                    f"{participant.checkpoint.source}: not the checkpoint that was packed as "
                    f"{participant.name} (its values, names or shapes differ); say "
                    "--checkpoint PATH, or --forget"
                )
