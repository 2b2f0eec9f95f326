"""Adding: steps for what is new in the bank, deltas superposed, records appended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from randes_cli.build.editing import Editing
from randes_cli.build.exact import Copy, kept_tensor
from randes_cli.build.inputs import open_coming
from randes_cli.build.passes import PEAK_TO_RMS, TooNarrow
from randes_cli.build.records import recorded_source, supposed_record, task_record
from randes_cli.build.relate import relate
from randes_cli.build.sample import sampled_lengths, spread
from randes_cli.build.strips import Participant, Superposer, sum_groups
from randes_cli.core.grid import fits_8_bits, step_exponent
from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.bank_keys import sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.plan import Unit, fit_task
from randes_cli.reports import EditReport
from randes_cli.specs import TaskInput
from randes_cli.stats.stored import gather_lengths, norm_rows
from randes_cli.workers import run_serial


class Adding(Editing):
    """One `add` under way."""

    def coming(self, task: TaskInput, index: int) -> None:
        """Open a task that enters the bank."""
        base, options = self.source(), self.options
        opened = open_coming(
            self.stack,
            task,
            base,
            options.opening,
            merge_adapters=options.merge_adapters,
        )
        fit = fit_task(self.named, opened.source.tensors, self.unit_of)
        seed = self.manifest.seed + index
        self.opened.append(opened)
        group = self.group_for(task)
        self.participants.append(
            Participant(task.name, index, seed, opened.source, fit, group=group)
        )

    def group_for(self, task: TaskInput) -> int:
        """The group that an added task enters: the one it names, else that with the fewest.

        Sealed groups take no more tasks; where all are sealed, a new one opens.
        """
        groups, sealed = self.manifest.groups, self.manifest.sealed
        if task.group is not None:
            if task.group >= groups:
                raise UsageError(
                    f"{task.name}@{task.group}: {self.old.path} has groups 0 to {groups - 1}"
                )
            if task.group in sealed:
                raise MismatchError(
                    f"{task.name}@{task.group}: that group is sealed at "
                    f"{sealed[task.group].bits} bits and read-only; leave the group out"
                )
            return task.group
        if len(sealed) == groups:
            self.manifest = replace(self.manifest, groups=groups + 1)
        held = Counter(record.group for record in self.manifest.tasks)
        held.update(group for _, group in self.manifest.forgotten)
        held.update(participant.group for participant in self.participants)
        live = (group for group in range(self.manifest.groups) if group not in sealed)
        return min(live, key=lambda group: (held[group], group))

    def add(self) -> EditReport:
        """Write the bank with the tasks that came."""
        self.source()
        self._new_steps()
        if self.options.dry_run:
            return self._dry_add()
        while True:
            try:
                with self._new_file() as file:
                    writer = BankWriter(file, self._candidates())
                    self._copy_base(writer)
                    engine = self._add_sums(writer, self._touched())
                    return self._finish_add(writer, engine)
            except TooNarrow as retry:
                for unit in retry.units:
                    self.bits[unit] = 16
                    self.exponents[unit] = step_exponent(
                        self.sampled[unit], bits=16, capacity=self.manifest.capacity
                    )

    def _touched(self) -> list[Unit]:
        names = {name for p in self.participants for name in p.fit.superposed}
        return [unit for unit in self.units if names & set(unit.names)]

    def _kept_sum(self, unit: Unit) -> bool:
        """Whether the bank has a superposition of a unit that the participants enter."""
        groups = sum_groups(unit, self.participants)
        return any(sum_key(group, unit.names[0]) in self.old for group in groups)

    def _new_steps(self) -> None:
        """Sample the units that enter the bank with these tasks, or come back to it.

        One that comes back keeps the step that it had, so that its bytes come back too.
        """
        new = [unit for unit in self._touched() if not self._kept_sum(unit)]
        capacity, width = self.manifest.capacity, self.manifest.bits

        def look(unit: Unit) -> None:
            found = spread(self.base, self.participants, unit)
            if found.rms > 0:
                self.sampled[unit] = found.rms
            if found.rms > 0 and unit not in self.fixed:
                narrow = width == 8 and fits_8_bits(found.rms, found.peak, capacity=capacity)
                self.bits[unit] = 8 if narrow else 16
                self.exponents[unit] = step_exponent(
                    found.rms, bits=self.bits[unit], capacity=capacity
                )

        run_serial(new, look, phase="sampling", progress=self.progress)

    def _add_sums(self, writer: BankWriter, touched: Sequence[Unit]) -> Superposer:
        old = {unit for unit in touched if self._kept_sum(unit)}
        ready = [unit for unit in touched if unit in old or unit in self.sampled]
        looked = [unit for unit in touched if unit not in old and unit not in self.sampled]
        entered = {unit: sum_groups(unit, self.participants) for unit in ready}
        for group, unit in self._places():
            if group in entered.get(unit, ()):
                self._place_sum(writer, group, unit)
            else:
                self._copy_sum(writer, group, unit)
        self._copy_sealed(writer, self.manifest.sealed)
        self._copy_kept(writer, set())
        for tensor, file in self._new_files():
            writer.add_whole(tensor, file.content())
        owned = self._copies()
        for copy in owned:
            if copy.twin is None:
                writer.place(kept_tensor(copy, self.source()))
        self.steps = {unit: self.exponents[unit] for unit in ready}
        engine = self._engine(writer)
        first = [replace(copy, key=None) if copy.twin else copy for copy in owned]
        self._pass(engine, [*ready, *looked], first, "adding")
        self._settle(engine)
        self._add_late(engine, writer, owned)
        return engine

    def _add_late(self, engine: Superposer, writer: BankWriter, owned: Sequence[Copy]) -> None:
        """What only the whole pass showed to have changed."""
        late = [unit for unit in self.units if unit in engine.tally.largest]
        for unit in late:
            rms = engine.tally.largest[unit] / PEAK_TO_RMS
            if unit not in self.fixed:
                self.bits[unit] = 16
                self.exponents[unit] = step_exponent(rms, bits=16, capacity=self.manifest.capacity)
            self.steps[unit] = self.exponents[unit]
            for group in sum_groups(unit, self.participants):
                self._place_sum(writer, group, unit)
        differ = [c for c in owned if c.twin and (c.who, c.name) in engine.tally.changed]
        for copy in differ:
            writer.place(kept_tensor(copy, self.source()))
        if late or differ:
            self._pass(engine, late, differ, "sparse changes")
            self._settle(engine)

    def _finish_add(self, writer: BankWriter, engine: Superposer) -> EditReport:
        added = [
            task_record(
                self.named,
                opened,
                participant,
                who,
                engine.tally,
                source=recorded_source(opened.source.source, self.old.path),
            )
            for who, (opened, participant) in enumerate(
                zip(self.opened, self.participants, strict=True)
            )
        ]
        steps, widths = self._step_table(writer)
        manifest = replace(
            self.manifest.with_tasks([*self.manifest.tasks, *added]),
            next_index=self.manifest.next_index + len(added),
            steps=steps,
            widths=widths,
        )
        tensors = list(self.named.values())
        lengths = gather_lengths(tensors, len(self.participants), self.exponents, engine.tally)
        statistics = relate(
            self.stored,
            self.old,
            self.base,
            self.participants,
            lengths,
            self.exponents,
            self.progress,
        )
        manifest = replace(manifest, cells=statistics.cells, estimated=statistics.estimated)
        size = self._finish(writer, manifest, statistics)
        return self._report(manifest, statistics, size)

    def _step_table(self, writer: BankWriter) -> tuple[dict[str, int], dict[str, int]]:
        """Steps and widths of every superposition that is or was in the bank, in base order."""
        known = [
            (name, unit)
            for unit in self.units
            if unit in self.fixed
            or any(writer.placed(sum_key(g, unit.names[0])) for g in range(self.manifest.groups))
            for name in unit.names
        ]
        widths = {n: self.bits[u] for n, u in known if self.bits[u] != self.manifest.bits}
        return {name: self.exponents[unit] for name, unit in known}, widths

    def _dry_add(self) -> EditReport:
        rows = norm_rows(self.named.values())
        found = sampled_lengths(self.base, self.participants, self.exponents, rows)
        statistics = relate(
            self.stored,
            self.old,
            self.base,
            self.participants,
            (found.norms, found.rounded),
            self.exponents,
            self.progress,
        )
        added = [
            supposed_record(participant, [n for n, c in zip(rows, there, strict=True) if c])
            for participant, there in zip(self.participants, found.changed.T, strict=True)
        ]
        manifest = self.manifest.with_tasks([*self.manifest.tasks, *added])
        return self._report(manifest, statistics, self.old.header.file_size)
