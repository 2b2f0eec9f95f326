"""`add` and `remove`: a new bank from the old one and the checkpoints that come or go.

Superpositions change by exact integers, everything else is copied as it is. The old bank stays
until the new one takes its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from randes_cli.core.grid import LIMIT, fits_8_bits, raised_exponent, step_exponent
from randes_cli.core.kernel import Kernel
from randes_cli.errors import BankDamaged, MismatchError, MissingError, UsageError
from randes_cli.files.atomic import atomic_file, check_space
from randes_cli.files.bank import (
    CHECKS,
    GRAM,
    MANIFEST,
    NORMS,
    BankFile,
    BankWriter,
    base_key,
    file_key,
    own_key,
    sum_key,
)
from randes_cli.files.lock import bank_lock
from randes_cli.files.manifest import Manifest, TaskRecord
from randes_cli.files.side_files import SideFile
from randes_cli.ops.copies import copy_tensors
from randes_cli.ops.exact import Copy, kept_tensor, owned_copies, run_copy
from randes_cli.ops.inputs import (
    OpenTask,
    bank_source,
    check_names,
    open_coming,
    reopen,
)
from randes_cli.ops.kernels import make_kernel
from randes_cli.ops.pack import PEAK_TO_RMS, TooNarrow
from randes_cli.ops.parallel import Progress, no_progress, run_parallel, thread_count
from randes_cli.ops.records import recorded_source, task_record
from randes_cli.ops.relate import relate
from randes_cli.ops.reports import EditReport
from randes_cli.ops.retrieve import BankBase, find_recorded, find_task, open_base
from randes_cli.ops.sample import spread
from randes_cli.ops.statistics import (
    Statistics,
    drop_tasks,
    gather_norms,
    norm_rows,
    stored_statistics,
    summaries,
)
from randes_cli.ops.superpose import (
    Participant,
    Source,
    Superposer,
    sum_groups,
    sum_tensors,
    unit_jobs,
)
from randes_cli.plan import Unit, fit_task, plan_units, strip_elements, strip_memory
from randes_cli.specs import ITEM_SIZE, OpenOptions, RunOptions, TaskInput, TensorInfo


@dataclass(frozen=True, slots=True)
class EditOptions:
    """How an edit runs.

    Attributes:
        base: the base's checkpoint, where it lies outside the bank and has moved.
        wait: seconds to wait for another editor.
        dry_run: only report.
        merge_adapters: LoRA adapters become full tasks: base + scaling · B · A.
        opening: what may be read of the checkpoints.
    """

    base: str | None = None
    wait: float = 0.0
    dry_run: bool = False
    merge_adapters: bool = False
    opening: OpenOptions = field(default_factory=OpenOptions)


def add(
    bank: Path,
    tasks: Sequence[TaskInput],
    options: EditOptions | None = None,
    run: RunOptions | None = None,
    *,
    progress: Progress = no_progress,
) -> EditReport:
    """Add tasks to a bank; each gets the next unused index.

    Raises MismatchError (another base, or a superposition that would overflow), UsageError (a
    name that is taken), BankLocked, BankDamaged, CheckpointError, NoSpace.
    """
    options, run = options or EditOptions(), run or RunOptions()
    if not tasks:
        raise UsageError("no task to add: name at least one fine-tuned checkpoint")
    with ExitStack() as stack:
        old = stack.enter_context(_locked(bank, options))
        editing = _Editing(old, stack, options, run, progress)
        taken = [TaskInput(task.name, task.source) for task in old.manifest.tasks]
        check_names([*taken, *tasks])
        for number, task in enumerate(tasks):
            editing.coming(task, old.manifest.next_index + number)
        return editing.add()


def remove(
    bank: Path,
    names: Sequence[str],
    options: EditOptions | None = None,
    run: RunOptions | None = None,
    *,
    checkpoints: Mapping[str, str] | None = None,
    forget: bool = False,
    progress: Progress = no_progress,
) -> EditReport:
    """Take tasks out of a bank by subtracting what was added, which needs their checkpoints.

    `checkpoints` names them by task; otherwise the recorded sources are looked for. With
    `forget` nothing is subtracted: only the record goes, the delta stays as interference, and
    whoever kept the seed can still retrieve it.
    Raises MissingError (no such task, no checkpoint), MismatchError (a checkpoint with another
    fingerprint), BankLocked, BankDamaged, NoSpace.
    """
    options, run = options or EditOptions(), run or RunOptions()
    if len(set(names)) != len(names) or not names:
        raise UsageError("name each task to remove once")
    with ExitStack() as stack:
        old = stack.enter_context(_locked(bank, options))
        records = [find_task(old, name) for name in names]
        editing = _Editing(old, stack, options, run, progress)
        if not forget:
            for record in editing.subtractable(records):
                given = (checkpoints or {}).get(record.name)
                editing.participants.append(editing.leaving(record, given))
        return editing.remove(records, forget=forget)


@contextmanager
def _locked(bank: Path, options: EditOptions) -> Iterator[BankFile]:
    """The bank, opened under its write lock; a dry run only reads and needs none."""
    if options.dry_run:
        with BankFile(bank) as old:
            yield old
        return
    if not bank.exists():
        raise MissingError(f"{bank}: not found")
    with bank_lock(bank, wait=options.wait), BankFile(bank) as old:
        yield old


class _Editing:
    """One edit under way."""

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
        self.manifest: Manifest = old.manifest
        self.base: BankBase | None = None
        self.named = {tensor.name: tensor for tensor in self.manifest.base.tensors}
        self.units = plan_units(self.named.values(), self.manifest.transform)
        self.unit_of = {name: unit for unit in self.units for name in unit.names}
        self.participants: list[Participant] = []
        self.opened: list[OpenTask] = []
        self.exponents: dict[Unit, int] = {}
        self.bits: dict[Unit, int] = {}
        self.fixed: set[Unit] = set()
        #: Root mean squares of the new units whose sample shows a change.
        self.sampled: dict[Unit, float] = {}
        #: Steps of the units that the passes superpose; the others are only looked through.
        self.steps = self.exponents
        self.threads = thread_count(run.threads)
        self.stored = stored_statistics(old)
        self.before = summaries(self.manifest, self.stored)
        self._recorded_steps()

    def _recorded_steps(self) -> None:
        manifest = self.manifest
        for unit in self.units:
            name = unit.names[0]
            if name in manifest.steps:
                self.exponents[unit] = manifest.steps[name]
                self.bits[unit] = manifest.widths.get(name, manifest.bits)
                self.fixed.add(unit)

    # Which checkpoints

    def source(self) -> Source:
        """The base, opened when first asked for."""
        if self.base is None:
            self.base = open_base(self.old, self.options.base)
            if self.base is not None:
                self.stack.callback(self.base.close)
        return bank_source(self.old, self.base)

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

    def _new_files(self) -> list[tuple[TensorInfo, SideFile]]:
        """Side files of the tasks that come, each content that the bank lacks once."""
        files = {f.digest: f for opened in self.opened for f in opened.side_files.values()}
        return [
            (TensorInfo(file_key(content), "U8", (file.size,)), file)
            for content, file in sorted(files.items())
            if file_key(content) not in self.old
        ]

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

    # The two edits

    def add(self) -> EditReport:
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

    def remove(self, records: Sequence[TaskRecord], *, forget: bool) -> EditReport:
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
            size = self._seal(writer, manifest, statistics)
        return self._report(manifest, statistics, size)

    def _unused_files(self, manifest: Manifest) -> set[str]:
        """Side files that nothing in `manifest` names."""
        records = [manifest.base.files, *(task.files for task in manifest.tasks)]
        used = {file_key(content) for files in records for content in files.values()}
        return {key for key in self.old.header.tensors if key.startswith("files/")} - used

    def _owned(self, record: TaskRecord) -> list[str]:
        return [*record.own, *record.shapes]

    # Steps and layout

    def _touched(self) -> list[Unit]:
        names = {name for p in self.participants for name in p.fit.superposed}
        return [unit for unit in self.units if names & set(unit.names)]

    def _new_steps(self) -> None:
        """Sample the units that enter the bank with these tasks, or come back to it.

        One that comes back keeps the step that it had, so that its bytes come back too.
        """
        new = [unit for unit in self._touched() if not self._kept_sum(unit)]
        capacity, width = self.manifest.capacity, self.manifest.bits

        def look(_: None, unit: Unit) -> int:
            found = spread(self.base, self.participants, unit)
            if found.rms > 0:
                self.sampled[unit] = found.rms
            if found.rms > 0 and unit not in self.fixed:
                narrow = width == 8 and fits_8_bits(found.rms, found.peak, capacity=capacity)
                self.bits[unit] = 8 if narrow else 16
                self.exponents[unit] = step_exponent(
                    found.rms, bits=self.bits[unit], capacity=capacity
                )
            return 1

        self._parallel(new, lambda: None, look, phase="sampling", total=len(new))

    def _new_file(self) -> Any:
        incoming = sum(
            tensor.nbytes for p in self.participants for tensor in p.checkpoint.tensors.values()
        )
        added = incoming if self.participants and self.participants[0].sign > 0 else 0
        check_space(self.old.path.parent, self.old.header.file_size + added)
        return atomic_file(self.old.path, force=True)

    def _candidates(self) -> list[TensorInfo]:
        """Every tensor that the new bank may have: for the header's room alone."""
        made = list(self.old.header.tensors.values())
        for group, unit in self._places():
            made += sum_tensors(unit, group, 16, self.named)
        made += [tensor for tensor, _ in self._new_files()]
        made += [kept_tensor(c, self.source()) for c in self._copies()]
        return [*made, TensorInfo(MANIFEST, "U8", (2**40,)), TensorInfo(CHECKS, "U8", (2**40,))]

    def _copies(self) -> list[Copy]:
        return owned_copies(self.source(), self.participants) if self.participants else []

    def _places(self) -> list[tuple[int, Unit]]:
        """Every live superposition that there can be, in the order of the file."""
        units = sorted(self.units, key=lambda unit: -self.bits.get(unit, 16))
        groups = [g for g in range(self.manifest.groups) if g not in self.manifest.sealed]
        return [(group, unit) for group in groups for unit in units]

    def _copy_sealed(self, writer: BankWriter, groups: Iterable[int]) -> None:
        """Copy read-only groups whole, wide elements first: no padding."""
        starts = tuple(f"{kind}/{group}/" for group in groups for kind in ("sum", "scale"))
        keys = [key for key in self.old.header.tensors if key.startswith(starts)]
        keys.sort(key=lambda key: -ITEM_SIZE[self.old.info(key).dtype])
        self._copy(writer, keys)

    def _kept_sum(self, unit: Unit) -> bool:
        """Whether the bank has a superposition of a unit that the participants enter."""
        groups = sum_groups(unit, self.participants)
        return any(sum_key(group, unit.names[0]) in self.old for group in groups)

    def _copy_sum(self, writer: BankWriter, group: int, unit: Unit) -> None:
        keys = [sum_key(group, name) for name in unit.names]
        self._copy(writer, [key for key in keys if key in self.old])

    def _place_sum(self, writer: BankWriter, group: int, unit: Unit) -> None:
        for tensor in sum_tensors(unit, group, self.bits[unit], self.named):
            writer.place(tensor)

    # Copying

    def _copy(self, writer: BankWriter, keys: Sequence[str]) -> None:
        copy_tensors(writer, self.old, keys, self.progress)

    def _copy_base(self, writer: BankWriter) -> None:
        self._copy(writer, [key for key in self.old.header.tensors if key.startswith("base/")])

    def _copy_kept(self, writer: BankWriter, gone: set[str]) -> None:
        """Copy own tensors and files that stay."""
        kept = [
            key
            for key in self.old.header.tensors
            if key.startswith(("own/", "files/")) and key not in gone
        ]
        self._copy(writer, kept)

    # Computing

    def _parallel(
        self,
        jobs: Sequence[Any],
        worker: Callable[[], Any],
        work: Callable[[Any, Any], int],
        *,
        phase: str,
        total: int,
    ) -> None:
        run_parallel(
            jobs,
            worker,
            work,
            threads=self.threads,
            phase=phase,
            total=total,
            progress=self.progress,
        )

    def _strip(self, unit: Unit) -> int:
        return strip_elements(
            unit.layers,
            max_memory=self.run.max_memory,
            threads=self.threads,
            chosen=self.run.strip_elements,
        )

    def _widest(self) -> tuple[int, int]:
        widest = max((self._strip(unit) for unit in self.units), default=1)
        return widest, max((unit.layers for unit in self.units), default=1)

    def _kernel(self) -> Kernel:
        elements, layers = self._widest()
        return make_kernel(self.run.device, elements=elements, layers=layers)

    def _engine(self, writer: BankWriter) -> Superposer:
        return Superposer(
            base=self.base,
            participants=self.participants,
            writer=writer,
            exponents=self.steps,
            bits=self.bits,
            strip=self._strip,
            write_base=False,
            old=self.old,
        )

    def _pass(
        self, engine: Superposer, units: Sequence[Unit], copies: Sequence[Copy], phase: str
    ) -> None:
        jobs = [job for unit in units for job in unit_jobs(unit, self.participants)]
        total = sum(map(engine.job_bytes, jobs)) + sum(copy.nbytes for copy in copies)

        def work(kernel: Any, job: Any) -> int:
            if isinstance(job, Copy):
                return run_copy(job, engine.writer, engine.tally)
            return engine.run(kernel, job)

        self._parallel([*jobs, *copies], self._kernel, work, phase=phase, total=total)
        self._check_base(engine)

    def _check_base(self, engine: Superposer) -> None:
        """Whether the base that deltas were taken from is the one that the bank records."""
        if self.base is None:
            return
        for (who, name), chunks in engine.tally.digests.items():
            for chunk, value in chunks.items() if who < 0 else ():
                if value == self.base.digest(name, chunk):
                    continue
                if self.base.outside is not None:
                    raise MismatchError(
                        f"{self.base.source}: tensor {name!a} has other values than the base"
                    )
                raise BankDamaged(
                    f"{self.old.path}: tensor {base_key(name)!a} is damaged (see: randes verify)"
                )

    def _settle(self, engine: Superposer) -> None:
        """Coarsen new superpositions until they fit; refuse an overflow of an old one."""
        while engine.tally.peaks:
            peaks, engine.tally.peaks = engine.tally.peaks, {}
            full = next((unit for unit in peaks if unit in self.fixed), None)
            if full is not None:
                raise MismatchError(
                    f"{self.old.path}: tensor {full.names[0]!a} would overflow its "
                    f"{self.bits[full]}-bit superposition ({peaks[full]} steps, "
                    f"{LIMIT[self.bits[full]]} fit); pack the bank anew with --bits 16 or a "
                    "larger --capacity"
                )
            narrow = {unit for unit in peaks if self.bits[unit] == 8}
            if narrow:
                raise TooNarrow(narrow)
            for unit, peak in peaks.items():
                self._raise_step(unit, peak)
                self.steps[unit] = self.exponents[unit]
            self._pass(engine, list(peaks), [], "coarser steps")

    def _raise_step(self, unit: Unit, peak: int) -> None:
        raised = raised_exponent(self.exponents[unit], peak, bits=16)
        if raised == self.exponents[unit]:
            raise MismatchError(
                f"{self.old.path}: tensor {unit.names[0]!a}: a task differs by more than 2^115, "
                "beyond every grid; it cannot be superposed"
            )
        self.exponents[unit] = raised

    # Adding

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
        norms = gather_norms(tensors, len(self.participants), self.exponents, engine.tally)
        statistics = relate(
            self.stored,
            self.old,
            self.base,
            self.participants,
            norms,
            self.exponents,
            threads=self.threads,
            progress=self.progress,
        )
        manifest = replace(manifest, cells=statistics.cells, estimated=statistics.estimated)
        size = self._seal(writer, manifest, statistics)
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
        statistics = relate(
            self.stored,
            self.old,
            self.base,
            self.participants,
            None,
            self.exponents,
            threads=self.threads,
            progress=self.progress,
        )
        added = [
            TaskRecord(p.name, p.index, p.seed, p.group, p.checkpoint.source, "", {}, own={})
            for p in self.participants
        ]
        manifest = self.manifest.with_tasks([*self.manifest.tasks, *added])
        return self._report(manifest, statistics, self.old.header.file_size)

    # Removing

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
        from randes_cli.files.digests import fingerprint

        for who, participant in enumerate(self.participants):
            tensors = participant.checkpoint.tensors
            found = fingerprint(tensors, engine.tally.joined(who, tensors))
            if found != records[who].fingerprint:
                raise MismatchError(
                    f"{participant.checkpoint.source}: not the checkpoint that was packed as "
                    f"{participant.name} (its values, names or shapes differ); say "
                    "--checkpoint PATH, or --forget"
                )

    # The end

    def _seal(self, writer: BankWriter, manifest: Manifest, statistics: Statistics) -> int:
        count, cells = len(manifest.tasks), len(statistics.cells)
        rows = len(norm_rows(manifest.base.tensors))
        writer.add_whole(TensorInfo(NORMS, "F64", (rows, count)), statistics.norms.tobytes())
        shape = (cells, 2, count, count)
        writer.add_whole(TensorInfo(GRAM, "F64", shape), statistics.grams.tobytes())
        others = [key for key in self.old.header.tensors if key.startswith("stats/")]
        self._copy(writer, [key for key in others if key not in (NORMS, GRAM)])
        return writer.finish(manifest)

    def _report(self, manifest: Manifest, statistics: Statistics, size: int) -> EditReport:
        elements, layers = self._widest()
        incoming = sum(t.nbytes for p in self.participants for t in p.checkpoint.tensors.values())
        return EditReport(
            bank=str(self.old.path),
            dry_run=self.options.dry_run,
            bytes_before=self.old.header.file_size,
            bytes_after=size,
            read_bytes=incoming,
            buffer_bytes=self.threads * strip_memory(layers, elements),
            before=self.before,
            after=summaries(manifest, statistics),
            estimated=tuple(sorted(statistics.estimated)),
        )
