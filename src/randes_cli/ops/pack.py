"""`pack`: a base and its fine-tunes into a new bank, in one pass over their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.grid import fits_8_bits, raised_exponent, step_exponent
from randes_cli.core.kernel import Kernel
from randes_cli.errors import CheckpointError, MismatchError, UsageError
from randes_cli.files.atomic import atomic_file, check_space, check_target
from randes_cli.files.bank import (
    BASE_DIGESTS,
    CHECKS,
    GRAM,
    MANIFEST,
    NORMS,
    BankWriter,
    base_key,
)
from randes_cli.files.checkpoint import Checkpoint, open_checkpoint
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, fingerprint
from randes_cli.files.manifest import BaseRecord, Manifest, TaskRecord
from randes_cli.ops.exact import Copy, kept_tensor, owned_copies, run_copy
from randes_cli.ops.kernels import make_kernel
from randes_cli.ops.parallel import Progress, no_progress, run_parallel, thread_count
from randes_cli.ops.records import recorded_source, task_record
from randes_cli.ops.reports import PackReport, TaskSummary
from randes_cli.ops.sample import Spread, spread
from randes_cli.ops.statistics import (
    Cells,
    choose_cells,
    gather_grams,
    gather_norms,
    norm_rows,
    predictions,
)
from randes_cli.ops.superpose import Participant, Superposer, Tally, sum_tensors, unit_jobs
from randes_cli.plan import (
    LEAST_MATCH,
    TaskFit,
    Unit,
    fit_task,
    guess_prefix,
    plan_units,
    strip_elements,
    strip_memory,
    superposable,
    tensor_bytes,
)
from randes_cli.specs import (
    ITEM_SIZE,
    BaseStorage,
    PackOptions,
    RunOptions,
    TaskInput,
    TensorInfo,
    check_task_name,
)

F64 = NDArray[np.float64]

#: A tensor whose sample shows no change gets its step from its largest change, as if that
#: were so many times the root mean square.
PEAK_TO_RMS = 8


class _TooNarrow(Exception):
    """These units passed the range of 8 bits."""

    def __init__(self, units: set[Unit]) -> None:
        super().__init__(units)
        self.units = units


def check_fit(
    base: Mapping[str, TensorInfo], base_source: str, task: Checkpoint, fit: TaskFit
) -> None:
    """Raise MismatchError when a task has too little in common with the base."""
    if fit.matched >= LEAST_MATCH:
        return
    ours, theirs = (", ".join(map(ascii, names)) or "none" for names in fit.unmatched)
    prefix = guess_prefix(base, task.tensors)
    hint = ""
    if prefix and prefix != ("", ""):
        hint = f"; its names have {prefix[0]!a} where the base's have {prefix[1]!a}"
    raise MismatchError(
        f"{task.source}: matches only {fit.matched:.1%} of the base's bytes by name and shape "
        f"(only in {base_source}: {ours}; only in the task: {theirs}{hint}); "
        "is it of another base?"
    )


@dataclass(frozen=True)
class _Setup:
    """What is known before a byte is computed."""

    base: Checkpoint
    participants: list[Participant]
    options: PackOptions
    run: RunOptions
    units: list[Unit]
    capacity: int
    threads: int

    def strip(self, unit: Unit) -> int:
        return strip_elements(
            unit.layers,
            max_memory=self.run.max_memory,
            threads=self.threads,
            chosen=self.run.strip_elements,
        )

    def widest(self) -> tuple[int, int]:
        """(elements of the widest strip, layers of the deepest unit)."""
        layers = max((unit.layers for unit in self.units), default=1)
        return max((self.strip(unit) for unit in self.units), default=1), layers

    def kernel(self) -> Kernel:
        elements, layers = self.widest()
        return make_kernel(self.run.device, elements=elements, layers=layers)

    def buffer_bytes(self) -> int:
        elements, layers = self.widest()
        return strip_memory(layers, elements)


def check_names(tasks: Sequence[TaskInput]) -> None:
    """Refuse names that are not allowed, or twice there (also but for their case)."""
    seen: dict[str, str] = {}
    for task in tasks:
        check_task_name(task.name)
        other = seen.get(task.name.lower())
        if other is not None:
            alike = "is there twice" if other == task.name else f"and {other!a} differ only in case"
            raise UsageError(f"task name {task.name!a} {alike}; say NAME=PATH")
        seen[task.name.lower()] = task.name


def _participants(
    base: Checkpoint, tasks: Sequence[tuple[TaskInput, Checkpoint]], units: list[Unit], seed: int
) -> list[Participant]:
    names = [name for unit in units for name in unit.names]
    taken = {task.index for task, _ in tasks if task.index is not None}
    if any(not 0 <= index < 2**31 for index in taken):
        raise UsageError("a task's index must be between 0 and 2^31-1")
    if len(taken) < sum(task.index is not None for task, _ in tasks):
        raise UsageError("two tasks ask for the same index")
    free = (index for index in range(2**31) if index not in taken)
    made = []
    for task, checkpoint in tasks:
        index = next(free) if task.index is None else task.index
        fit = fit_task(base.tensors, checkpoint.tensors, names)
        check_fit(base.tensors, base.source, checkpoint, fit)
        made.append(Participant(task.name, index, seed + index, checkpoint, fit))
    return sorted(made, key=lambda participant: participant.index)


def pack(
    base: str,
    tasks: Sequence[TaskInput],
    out: str | Path,
    options: PackOptions | None = None,
    run: RunOptions | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> PackReport:
    """Write a bank of `tasks`, fine-tuned from `base`, to `out`.

    Every byte of the inputs is read once, but for a fixed sample of about one part in fifty.
    Raises CheckpointError, MismatchError, MissingError, UsageError, NoSpace.
    """
    options, run, out = options or PackOptions(), run or RunOptions(), Path(out)
    if not tasks:
        raise UsageError("no task to pack: name at least one fine-tuned checkpoint")
    check_names(tasks)
    if not dry_run:
        check_target(out, force=force)
    with ExitStack() as stack:
        opened = stack.enter_context(open_checkpoint(base))
        pairs = [(task, stack.enter_context(open_checkpoint(task.source))) for task in tasks]
        units = plan_units(opened.tensors.values(), options.transform)
        setup = _Setup(
            opened,
            _participants(opened, pairs, units, options.seed),
            options,
            run,
            units,
            options.capacity or max(16, 2 * len(tasks)),
            thread_count(run.threads),
        )
        return _Packing(setup, out, force, dry_run, progress).run()


class _Packing:
    """One pack under way."""

    def __init__(
        self, setup: _Setup, out: Path, force: bool, dry_run: bool, progress: Progress
    ) -> None:
        self.setup, self.out, self.force, self.dry_run = setup, out, force, dry_run
        self.progress = progress
        self.base, self.participants = setup.base, setup.participants
        self.exponents: dict[Unit, int] = {}
        self.bits: dict[Unit, int] = {}
        self.spreads: dict[Unit, Spread] = {}
        self.to_read = sum(
            tensor.nbytes
            for source in [self.base, *(p.checkpoint for p in self.participants)]
            for tensor in source.tensors.values()
        )

    def run(self) -> PackReport:
        self._choose_steps()
        if self.dry_run:
            return self._report(self._estimate(), self._sampled_norms(), None, None)
        check_space(self.out.parent, self._estimate())
        while True:
            try:
                with atomic_file(self.out, force=self.force) as file:
                    writer = BankWriter(file, self._candidates())
                    return self._fill(writer)
            except _TooNarrow as retry:
                self._widen(retry.units)

    # Steps

    def _choose_steps(self) -> None:
        """Sample every unit; those whose sample shows no change get no step yet."""

        def look(_: None, unit: Unit) -> int:
            self.spreads[unit] = spread(self.base, self.participants, unit)
            return 1

        units = self.setup.units
        self._parallel(units, lambda: None, look, phase="sampling", total=len(units))
        for unit in units:
            found, name = self.spreads[unit], unit.names[0]
            if found.rms > 0:
                self._set_step(unit, found)
                if name in self.setup.options.steps:
                    self.exponents[unit] = self.setup.options.steps[name]
                    self.bits[unit] = self.setup.options.widths.get(name, self.setup.options.bits)

    def _set_step(self, unit: Unit, found: Spread) -> None:
        bits, capacity = self.setup.options.bits, self.setup.capacity
        if bits == 8 and not fits_8_bits(found.rms, found.peak, capacity=capacity):
            bits = 16
        self.bits[unit] = bits
        self.exponents[unit] = step_exponent(found.rms, bits=bits, capacity=capacity)

    def _widen(self, units: set[Unit]) -> None:
        """Keep at 16 bits what passed the range of 8."""
        for unit in units:
            self.bits[unit] = 16
            rms = self.spreads[unit].rms
            self.exponents[unit] = step_exponent(rms, bits=16, capacity=self.setup.capacity)

    # Layout

    def _base_tensors(self) -> list[TensorInfo]:
        if self.setup.options.base_storage is not BaseStorage.embed:
            return []
        ordered = sorted(self.base.tensors.values(), key=lambda tensor: -ITEM_SIZE[tensor.dtype])
        return [replace(tensor, name=base_key(tensor.name)) for tensor in ordered]

    def _statistics(self) -> list[TensorInfo]:
        count = len(self.participants)
        rows = sum(superposable(tensor) for tensor in self.base.tensors.values())
        made = [
            TensorInfo(NORMS, "F64", (rows, count)),
            TensorInfo(GRAM, "F64", (len(self._cells()), 2, count, count)),
        ]
        if self.setup.options.base_storage is BaseStorage.reference:
            size = DIGEST_BYTES * sum(map(chunk_count, self.base.tensors.values()))
            made.append(TensorInfo(BASE_DIGESTS, "U8", (size,)))
        return made

    def _sums(self, unit: Unit) -> list[TensorInfo]:
        return sum_tensors(unit, 0, self.bits.get(unit, 16), self.base.tensors)

    def _candidates(self) -> list[TensorInfo]:
        """Every tensor that the bank may have."""
        made = [*self._base_tensors(), *self._statistics()]
        made += [tensor for unit in self.setup.units for tensor in self._sums(unit)]
        made += (kept_tensor(c, self.base) for c in owned_copies(self.base, self.participants))
        return [*made, TensorInfo(MANIFEST, "U8", (2**40,)), TensorInfo(CHECKS, "U8", (2**40,))]

    def _estimate(self) -> int:
        """Bytes of the bank, at most but for the manifest's and digests' few."""
        text = 200 * (len(self.base.tensors) + 64 * len(self.participants)) + 2**16
        sizes = sum(
            tensor.nbytes for tensor in self._candidates()[:-2] if "sum/" not in tensor.name
        )
        sums = sum(t.nbytes for u in self.setup.units if u in self.exponents for t in self._sums(u))
        return sizes + sums + text

    # The passes

    def _parallel(self, jobs: Any, worker: Any, work: Any, *, phase: str, total: int) -> None:
        run_parallel(
            jobs,
            worker,
            work,
            threads=self.setup.threads,
            phase=phase,
            total=total,
            progress=self.progress,
        )

    def _fill(self, writer: BankWriter) -> PackReport:
        embed = self.setup.options.base_storage is BaseStorage.embed
        for tensor in self._base_tensors():
            writer.place(tensor)
        sampled = [unit for unit in self.setup.units if unit in self.exponents]
        for unit in sorted(sampled, key=lambda unit: -self.bits[unit]):  # wide first: no padding
            self._place(writer, self._sums(unit))
        owned = owned_copies(self.base, self.participants)
        self._place(writer, [kept_tensor(copy, self.base) for copy in owned if copy.twin is None])
        engine = self._engine(writer, write_base=embed)
        copies = [replace(c, key=None) if c.twin else c for c in owned]
        self._pass(engine, self.setup.units, [*copies, *self._base_copies(embed)], "packing")
        self._again(engine, writer)
        late = [u for u in self.setup.units if u in engine.tally.largest]
        for unit in late:
            found = engine.tally.largest[unit] / PEAK_TO_RMS
            self.exponents[unit] = step_exponent(found, bits=16, capacity=self.setup.capacity)
            self.bits[unit] = 16
            self._place(writer, self._sums(unit))
        differ = [c for c in owned if c.twin and (c.who, c.name) in engine.tally.changed]
        self._place(writer, [kept_tensor(copy, self.base) for copy in differ])
        engine.write_base = False
        self._pass(engine, late, differ, "sparse changes")
        self._again(engine, writer)
        return self._finish(writer, engine)

    @staticmethod
    def _place(writer: BankWriter, tensors: list[TensorInfo]) -> None:
        for tensor in tensors:
            writer.place(tensor)

    def _engine(self, writer: BankWriter, *, write_base: bool) -> Superposer:
        return Superposer(
            base=self.base,
            participants=self.participants,
            writer=writer,
            group=0,
            exponents=self.exponents,
            bits=self.bits,
            strip=self.setup.strip,
            write_base=write_base,
        )

    def _base_copies(self, embed: bool) -> list[Copy]:
        inside = {name for unit in self.setup.units for name in unit.names}
        return [
            Copy(self.base, name, base_key(name) if embed else None, -1)
            for name in self.base.tensors
            if name not in inside
        ]

    def _pass(self, engine: Superposer, units: list[Unit], copies: list[Copy], phase: str) -> None:
        jobs = [job for unit in units for job in unit_jobs(unit, self.participants)]

        def work(kernel: Any, job: Any) -> int:
            if isinstance(job, Copy):
                return run_copy(job, engine.writer, engine.tally)
            return engine.run(kernel, job)

        self._parallel([*jobs, *copies], self.setup.kernel, work, phase=phase, total=self.to_read)

    def _again(self, engine: Superposer, writer: BankWriter) -> None:
        """Superpose anew, on a coarser grid, what did not fit; raise _TooNarrow at 8 bits."""
        while engine.tally.peaks:
            peaks, engine.tally.peaks = engine.tally.peaks, {}
            narrow = {unit for unit in peaks if self.bits.get(unit, 16) == 8}
            if narrow:
                raise _TooNarrow(narrow)
            for unit, peak in peaks.items():
                raised = raised_exponent(self.exponents[unit], peak, bits=16)
                if raised == self.exponents[unit]:
                    raise CheckpointError(
                        f"{self.base.source}: tensor {unit.names[0]!a}: a task differs by more "
                        "than 2^115, beyond every grid; keep it exactly with --targets and --rest own"
                    )
                self.exponents[unit] = raised
            self._pass(engine, list(peaks), [], "coarser steps")

    # The end

    def _finish(self, writer: BankWriter, engine: Superposer) -> PackReport:
        base, tally, options = self.base.tensors, engine.tally, self.setup.options
        cells = self._cells()
        norms = gather_norms(list(base.values()), len(self.participants), self.exponents, tally)
        grams = gather_grams(
            self.base,
            self.participants,
            self.exponents,
            cells,
            threads=self.setup.threads,
            progress=self.progress,
        )
        digests = tally.joined(-1, base)
        data = [norms.tobytes(), grams.tobytes(), b"".join(digests.values())]
        for tensor, content in zip(self._statistics(), data, strict=False):
            writer.add_whole(tensor, content)
        manifest = Manifest(
            transform=options.transform,
            bits=options.bits,
            seed=options.seed,
            capacity=self.setup.capacity,
            next_index=1 + max(participant.index for participant in self.participants),
            base=BaseRecord(
                recorded_source(self.base.source, self.out),
                fingerprint(base, digests),
                options.base_storage,
                self.base.metadata,
                tuple(base.values()),
            ),
            tasks=tuple(self._records(tally)),
            steps=self._step_table(),
            widths={
                name: bits
                for unit, bits in self.bits.items()
                if bits != options.bits
                for name in unit.names
            },
            cells=tuple(cells),
        )
        size = writer.finish(manifest)
        return self._report(size, norms, grams, manifest)

    def _cells(self) -> Cells:
        tensors = list(self.base.tensors.values())
        return choose_cells(self.setup.units, tensors, len(self.participants))

    def _step_table(self) -> dict[str, int]:
        return {
            name: self.exponents[unit]
            for unit in self.setup.units
            if unit in self.exponents
            for name in unit.names
        }

    def _records(self, tally: Tally) -> list[TaskRecord]:
        return [
            task_record(
                self.base.tensors,
                participant,
                who,
                tally,
                source=recorded_source(participant.checkpoint.source, self.out),
                metadata=dict(participant.checkpoint.metadata),
            )
            for who, participant in enumerate(self.participants)
        ]

    def _sampled_norms(self) -> F64:
        """‖Δ‖² from the sample alone, before anything is packed."""
        unit_of = {name: unit for unit in self.setup.units for name in unit.names}
        rows = norm_rows(list(self.base.tensors.values()))
        made = np.zeros((len(rows), len(self.participants)))
        for row, name in enumerate(rows):
            if name in unit_of:
                squares = np.array(self.spreads[unit_of[name]].squares)
                made[row] = squares * self.base.tensors[name].elements
        return made

    def _report(
        self, size: int, norms: F64, grams: F64 | None, manifest: Manifest | None
    ) -> PackReport:
        tensors = list(self.base.tensors.values())
        cosines = predictions(norm_rows(tensors), norms, self._cells(), grams)
        return PackReport(
            bank=str(self.out),
            dry_run=self.dry_run,
            bank_bytes=size,
            base_bytes=tensor_bytes(tensors),
            separate_bytes=self.to_read,
            read_bytes=self.to_read,
            buffer_bytes=self.setup.threads * self.setup.buffer_bytes(),
            tasks=tuple(
                self._summary(participant, cosine, manifest)
                for participant, cosine in zip(self.participants, cosines, strict=True)
            ),
            kept_exactly={p.name: dict(p.fit.exact) for p in self.participants},
        )

    @staticmethod
    def _summary(participant: Participant, cosine: float, manifest: Manifest | None) -> TaskSummary:
        fit = participant.fit
        records = manifest.tasks if manifest else ()
        record = next((r for r in records if r.index == participant.index), None)
        unchanged = record.unchanged if record else frozenset()
        return TaskSummary(
            name=participant.name,
            index=participant.index,
            seed=participant.seed,
            predicted_cosine=cosine,
            coefficient=1.0,
            superposed=sum(name not in unchanged for name in fit.superposed),
            own=len(record.own) if record else len(fit.exact),
            unchanged=len(unchanged),
            missing=len(fit.missing),
        )
