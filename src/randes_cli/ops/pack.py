"""`pack`: a base and its fine-tunes into a new bank, in one pass over their bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.grid import fits_8_bits, raised_exponent, step_exponent
from randes_cli.core.stats import default_coefficient
from randes_cli.errors import CheckpointError, UsageError
from randes_cli.files.atomic import (
    atomic_file,
    check_space,
    check_target,
    refuse_same_file,
    sibling,
)
from randes_cli.files.bank import BankWriter, base_key
from randes_cli.files.digests import fingerprint
from randes_cli.files.manifest import BaseRecord, Manifest, TaskRecord
from randes_cli.ops.alternatives import (
    Outline,
    advice,
    best_fit,
    group_choices,
    parse_limit,
    weigh_all,
)
from randes_cli.ops.exact import Copy, kept_tensor, owned_copies
from randes_cli.ops.inputs import Inputs, check_names, open_inputs, participants
from randes_cli.ops.layout import Layout
from randes_cli.ops.parallel import Progress, no_progress, thread_count
from randes_cli.ops.passes import PEAK_TO_RMS, Passes, TooNarrow
from randes_cli.ops.records import recorded_source, task_record, task_summary
from randes_cli.ops.reports import Alternative, PackReport
from randes_cli.ops.sample import Spread, spread, supposed_spread
from randes_cli.ops.seal import seal
from randes_cli.ops.statistics import (
    gather_grams,
    gather_norms,
    kept_energy,
    norm_rows,
    predictions,
)
from randes_cli.ops.superpose import Participant, Superposer, Tally
from randes_cli.plan import Unit, choose_targets, plan_units, tensor_bytes
from randes_cli.specs import BaseStorage, PackOptions, RunOptions, TaskInput, TensorInfo

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class _Setup:
    """What is known before a byte is computed."""

    inputs: Inputs
    participants: list[Participant]
    options: PackOptions
    run: RunOptions
    units: list[Unit]
    groups: int
    capacity: int
    threads: int
    seal_bits: int | None


def _input_files(sources: Iterable[str]) -> Iterator[Path]:
    """The files that local sources may be read from."""
    for source in sources:
        path = Path(source)
        if path.is_dir():
            yield from path.iterdir()
        elif source:
            yield path


def pack(
    base: str | None,
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

    `base` is None where all tasks are LoRA adapters that stay adapters. Every byte of the
    inputs is read once, but for a fixed sample of about one part in fifty. A dry run lists the
    tasks that cannot be packed in its report; it raises only when none can.
    Raises CheckpointError, MismatchError, MissingError, UsageError, NoSpace.
    """
    options, run, out = options or PackOptions(), run or RunOptions(), Path(out)
    if not tasks:
        raise UsageError("no task to pack: name at least one fine-tuned checkpoint")
    check_names(tasks)
    if not dry_run:
        check_target(out, force=force)
        refuse_same_file(out, _input_files([base or "", *(task.source for task in tasks)]))
    if options.fit is not None:
        options = _fitted(base, tasks, out, options, run)
    seal_bits = options.bits if options.bits < 8 else None
    if seal_bits is not None:
        options = replace(options, bits=16)
    with ExitStack() as stack:
        inputs = open_inputs(
            stack,
            base,
            tasks,
            options,
            keep_going=dry_run and len(tasks) > 1,
            fetch=not dry_run,
        )
        tensors = list(inputs.base.tensors.values())
        options = replace(options, transform=choose_targets(tensors, options.transform))
        units = plan_units(tensors, options.transform)
        names = [name for unit in units for name in unit.names]
        pairs = participants(inputs.base, inputs.tasks, names, options)
        held = Counter(participant.group for _, participant in pairs)
        setup = _Setup(
            replace(inputs, tasks=[opened for opened, _ in pairs]),
            [participant for _, participant in pairs],
            options,
            run,
            units,
            max(options.groups, 1 + max(held)),
            options.capacity or max(16, 2 * max(held.values())),
            thread_count(run.threads),
            seal_bits,
        )
        live = sibling(out) if seal_bits is not None and not dry_run else out
        with ExitStack() as temporary:
            if live is not out:
                temporary.callback(live.unlink, missing_ok=True)
            report = _Packing(setup, live, force, dry_run, progress).run()
            if seal_bits is None or dry_run:
                return report
            sealed = seal(live, out, seal_bits, run, force=force, progress=progress)
        return replace(report, bank=str(out), bank_bytes=sealed.bytes_after)


def _fitted(
    base: str | None, tasks: Sequence[TaskInput], out: Path, options: PackOptions, run: RunOptions
) -> PackOptions:
    """The options with the bits and groups that are predicted best for the size asked for."""
    if any(task.group is not None for task in tasks):
        raise UsageError("--fit chooses the groups: leave @GROUP out")
    tried = replace(options, fit=None, bits=16, groups=1)
    report = pack(base, tasks, out, tried, run, force=True, dry_run=True)
    best = best_fit(report.alternatives, parse_limit(str(options.fit), report.base_bytes))
    return replace(options, fit=None, bits=best.bits, groups=best.groups)


class _Packing:
    """One pack under way."""

    def __init__(
        self, setup: _Setup, out: Path, force: bool, dry_run: bool, progress: Progress
    ) -> None:
        self.setup, self.out, self.force, self.dry_run = setup, out, force, dry_run
        self.progress = progress
        self.passes = Passes(setup.units, setup.run, setup.threads, progress)
        self.inputs, self.base, self.participants = (
            setup.inputs,
            setup.inputs.base,
            setup.participants,
        )
        self.exponents: dict[Unit, int] = {}
        self.bits: dict[Unit, int] = {}
        self.spreads: dict[Unit, Spread] = {}
        self.layout = Layout(
            self.base,
            self.participants,
            self.inputs.storage,
            setup.units,
            self.inputs.contents(),
            self.bits,
        )
        self.to_read = sum(
            tensor.nbytes
            for source in [self.base, *(p.checkpoint for p in self.participants)]
            for tensor in source.tensors.values()
        )

    def run(self) -> PackReport:
        self._choose_steps()
        size = self.layout.estimate(self.exponents, self.setup.seal_bits)
        if self.dry_run:
            return self._report(size, self._sampled_norms(), None, None)
        check_space(self.out.parent, size)
        while True:
            try:
                with atomic_file(self.out, force=self.force) as file:
                    writer = BankWriter(file, self.layout.candidates())
                    return self._fill(writer)
            except TooNarrow as retry:
                self._widen(retry.units)

    # Steps

    def _choose_steps(self) -> None:
        """Sample every unit; those whose sample shows no change get no step yet."""

        def look(_: None, unit: Unit) -> int:
            if self.inputs.away:
                self.spreads[unit] = supposed_spread(self.participants, unit)
            else:
                self.spreads[unit] = spread(self.base, self.participants, unit)
            return 1

        units = self.setup.units
        self.passes.parallel(units, lambda: None, look, phase="sampling", total=len(units))
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

    # The passes

    def _fill(self, writer: BankWriter) -> PackReport:
        embed = self.inputs.storage is BaseStorage.embed
        for tensor in self.layout.base_tensors():
            writer.place(tensor)
        stepped = [unit for unit in self.setup.units if unit in self.exponents]
        stepped.sort(key=lambda unit: -self.bits[unit])  # wide first: no padding
        self._place(writer, self.layout.sums(stepped))
        owned = owned_copies(self.base, self.participants)
        self._place(writer, [kept_tensor(copy, self.base) for copy in owned if copy.twin is None])
        engine = self._engine(writer, write_base=embed)
        copies = [replace(c, key=None) if c.twin else c for c in owned]
        self.passes.superpose(
            engine, self.setup.units, [*copies, *self._base_copies(embed)], "packing"
        )
        self._again(engine, writer)
        late = [u for u in self.setup.units if u in engine.tally.largest]
        for unit in late:
            found, name = engine.tally.largest[unit] / PEAK_TO_RMS, unit.names[0]
            self.exponents[unit] = step_exponent(found, bits=16, capacity=self.setup.capacity)
            self.bits[unit] = 16
            if name in self.setup.options.steps:
                self.exponents[unit] = self.setup.options.steps[name]
                self.bits[unit] = self.setup.options.widths.get(name, self.setup.options.bits)
        self._place(writer, self.layout.sums(late))
        differ = [c for c in owned if c.twin and (c.who, c.name) in engine.tally.changed]
        self._place(writer, [kept_tensor(copy, self.base) for copy in differ])
        engine.write_base = False
        self.passes.superpose(engine, late, differ, "sparse changes")
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
            exponents=self.exponents,
            bits=self.bits,
            strip=self.passes.strip,
            write_base=write_base,
        )

    def _base_copies(self, embed: bool) -> list[Copy]:
        inside = {name for unit in self.setup.units for name in unit.names}
        return [
            Copy(self.base, name, base_key(name) if embed else None, -1)
            for name in self.base.tensors
            if name not in inside
        ]

    def _again(self, engine: Superposer, writer: BankWriter) -> None:
        """Superpose anew, on a coarser grid, what did not fit; raise TooNarrow at 8 bits."""
        while engine.tally.peaks:
            peaks, engine.tally.peaks = engine.tally.peaks, {}
            narrow = {unit for unit in peaks if self.bits.get(unit, 16) == 8}
            if narrow:
                raise TooNarrow(narrow)
            for unit, peak in peaks.items():
                raised = raised_exponent(self.exponents[unit], peak, bits=16)
                if raised == self.exponents[unit]:
                    raise CheckpointError(
                        f"{self.base.source}: tensor {unit.names[0]!a}: a task differs by more "
                        "than 2^115, beyond every grid; keep it exactly (--targets, --rest own)"
                    )
                self.exponents[unit] = raised
            self.passes.superpose(engine, list(peaks), [], "coarser steps")

    # The end

    def _finish(self, writer: BankWriter, engine: Superposer) -> PackReport:
        base, tally, options = self.base.tensors, engine.tally, self.setup.options
        cells = self.layout.cells()
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
        for tensor, content in zip(self.layout.statistics(), data, strict=False):
            writer.add_whole(tensor, content)
        for tensor, file in self.layout.files():
            writer.add_whole(tensor, file.content())
        manifest = Manifest(
            transform=options.transform,
            bits=options.bits,
            seed=options.seed,
            capacity=self.setup.capacity,
            next_index=1 + max(participant.index for participant in self.participants),
            base=BaseRecord(
                recorded_source(self.inputs.base_name, self.out),
                fingerprint(base, digests),
                self.inputs.storage,
                self.base.metadata,
                tuple(base.values()),
                {name: file.digest for name, file in self.inputs.base_files.items()},
            ),
            tasks=tuple(self._records(tally)),
            groups=self.setup.groups,
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
                opened,
                participant,
                who,
                tally,
                source=recorded_source(opened.source.source, self.out),
            )
            for who, (opened, participant) in enumerate(
                zip(self.inputs.tasks, self.participants, strict=True)
            )
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
        groups = [participant.group for participant in self.participants]
        bits = self.setup.seal_bits
        kept = None if bits is None else kept_energy(tensors, groups, dict.fromkeys(groups, bits))
        rows = norm_rows(tensors)
        cosines = predictions(rows, norms, self.layout.cells(), grams, groups, kept)
        spread_out = predictions(rows, norms, (), None, groups, kept)
        chosen = [default_coefficient(cosine) for cosine in spread_out]
        choices = self._alternatives(size, norms) if self.dry_run else ()
        mean = float(np.mean(spread_out))
        return PackReport(
            bank=str(self.out),
            dry_run=self.dry_run,
            bank_bytes=size,
            base_bytes=tensor_bytes(tensors),
            separate_bytes=self.to_read,
            read_bytes=self.to_read,
            buffer_bytes=self.passes.buffer_bytes(),
            tasks=tuple(
                task_summary(opened, participant, cosine, coefficient, manifest, self._still(who))
                for who, (opened, participant, cosine, coefficient) in enumerate(
                    zip(self.inputs.tasks, self.participants, cosines, chosen, strict=True)
                )
            ),
            kept_exactly={p.name: dict(p.fit.exact) for p in self.participants},
            notes=self.inputs.base_notes,
            refused=self.inputs.refused,
            download_bytes=self.inputs.download_bytes,
            bits=bits or self.setup.options.bits,
            groups=self.setup.groups,
            alternatives=choices,
            advice=advice(choices, len(groups), size, mean, self.setup.groups),
        )

    def _alternatives(self, size: int, norms: F64) -> tuple[Alternative, ...]:
        """What other bits and groups would weigh and give back."""
        setup, layout = self.setup, self.layout
        stepped = [unit for unit in setup.units if unit in self.exponents]
        names = {name for unit in stepped for name in unit.names}
        base = list(self.base.tensors.values())
        outline = Outline(
            base,
            [tensor for tensor in base if tensor.name in names],
            norms,
            [participant.index for participant in self.participants],
            layout.estimate(()),
        )
        bits, groups = setup.seal_bits or setup.options.bits, setup.groups
        return tuple(
            replace(one, bank_bytes=size, present=True)
            if (one.groups, one.bits) == (groups, bits)
            else one
            for one in weigh_all(outline, group_choices(len(self.participants), groups))
        )

    def _still(self, who: int) -> frozenset[str]:
        """Superposed tensors whose sample shows no change of this participant."""
        fit = self.participants[who].fit
        return frozenset(
            name
            for unit, found in self.spreads.items()
            for name in unit.names
            if not found.squares[who] and name in fit.superposed
        )
