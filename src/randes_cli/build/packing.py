"""Packing: steps from a sample, one pass over all bytes, then what it found too wide or late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from randes_cli.build.exact import Copy, kept_tensor, owned_copies
from randes_cli.build.layout import Layout
from randes_cli.build.pack_report import Reporting
from randes_cli.build.pack_setup import Setup
from randes_cli.build.passes import PEAK_TO_RMS, Passes, TooNarrow
from randes_cli.build.records import recorded_source, recorded_words, task_record
from randes_cli.build.sample import Spread, spread, supposed_spread
from randes_cli.build.strips import Superposer, Tally
from randes_cli.core.grid import fits_8_bits, raised_exponent, step_exponent
from randes_cli.errors import CheckpointError
from randes_cli.files.atomic import atomic_file, check_space
from randes_cli.files.bank_keys import base_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import fingerprint
from randes_cli.files.manifest import Manifest
from randes_cli.files.records import BaseRecord, TaskRecord
from randes_cli.plan import Unit
from randes_cli.reports import PackReport
from randes_cli.specs import BaseStorage, TensorInfo
from randes_cli.stats.stored import gather_grams, gather_lengths
from randes_cli.workers import Progress, run_serial


class Packing:
    """One pack under way."""

    def __init__(
        self, setup: Setup, out: Path, force: bool, dry_run: bool, progress: Progress
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
        self.reporting = Reporting(
            setup,
            self.layout,
            self.exponents,
            self.spreads,
            out,
            dry_run,
            self.passes.buffer_bytes(),
        )

    def run(self) -> PackReport:
        """Write the bank, or only report in a dry run."""
        self._choose_steps()
        size = self.layout.estimate(self.exponents, self.setup.seal_bits)
        if self.dry_run:
            return self.reporting.dry(size, self.progress)
        check_space(self.out.parent, size)
        while True:
            try:
                with atomic_file(self.out, force=self.force) as file:
                    file.reserve(size)
                    writer = BankWriter(file, self.layout.candidates())
                    return self._fill(writer)
            except TooNarrow as retry:
                self._widen(retry.units)

    def _choose_steps(self) -> None:
        """Sample every unit; those whose sample shows no change get no step yet."""

        def look(unit: Unit) -> None:
            if self.inputs.away:
                self.spreads[unit] = supposed_spread(self.participants, unit)
            else:
                self.spreads[unit] = spread(self.base, self.participants, unit)

        units = self.setup.units
        run_serial(units, look, phase="sampling", progress=self.progress)
        for unit in units:
            found = self.spreads[unit]
            if found.rms > 0:
                self._set_step(unit, found)
                self._keep_step(unit)

    def _set_step(self, unit: Unit, found: Spread) -> None:
        bits, capacity = self.setup.options.bits, self.setup.capacity
        if bits == 8 and not fits_8_bits(found.rms, found.peak, capacity=capacity):
            bits = 16
        self.bits[unit] = bits
        self.exponents[unit] = step_exponent(found.rms, bits=bits, capacity=capacity)

    def _keep_step(self, unit: Unit) -> None:
        """Take the step that the options say, where they say one."""
        options, name = self.setup.options, unit.names[0]
        if name in options.steps:
            self.exponents[unit] = options.steps[name]
            self.bits[unit] = options.widths.get(name, options.bits)

    def _widen(self, units: set[Unit]) -> None:
        """Keep at 16 bits what passed the range of 8."""
        for unit in units:
            self.bits[unit] = 16
            rms = self.spreads[unit].rms
            self.exponents[unit] = step_exponent(rms, bits=16, capacity=self.setup.capacity)

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
            found = engine.tally.largest[unit] / PEAK_TO_RMS
            self.exponents[unit] = step_exponent(found, bits=16, capacity=self.setup.capacity)
            self.bits[unit] = 16
            self._keep_step(unit)
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

    def _finish(self, writer: BankWriter, engine: Superposer) -> PackReport:
        base, tally, options = self.base.tensors, engine.tally, self.setup.options
        cells = self.layout.cells()
        norms, rounded = gather_lengths(
            list(base.values()), len(self.participants), self.exponents, tally
        )
        grams = gather_grams(self.base, self.participants, self.exponents, cells, self.progress)
        digests = tally.joined(-1, base)
        data = [norms.tobytes(), rounded.tobytes(), grams.tobytes(), b"".join(digests.values())]
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
                recorded_source(self.inputs.base_name, self.out)
                if self.inputs.base_name
                else recorded_words(self.inputs.base_said),
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
        return self.reporting.report(size, norms, rounded, grams, manifest)

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
