"""A bank under edit: what adding and removing share.

The new bank is written beside the old one: what stays is copied, what changes is superposed onto
the old integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from randes_cli.build.copies import Run, closing_tensors, place_copies
from randes_cli.build.exact import Copy, kept_tensor, owned_copies
from randes_cli.build.inputs import OpenTask, bank_source
from randes_cli.build.passes import Passes, TooNarrow
from randes_cli.build.strips import Participant, Source, Superposer, sum_tensors
from randes_cli.core.grid import LIMIT, raised_exponent
from randes_cli.errors import BankDamaged, MismatchError
from randes_cli.files.atomic import OutputFile, atomic_file, check_space
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_checks import statistics_shapes
from randes_cli.files.bank_keys import base_key, file_key, sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.manifest import Manifest
from randes_cli.files.side_files import SideFile
from randes_cli.plan import Unit, plan_units
from randes_cli.read.retrieve import BankBase, open_base
from randes_cli.reports import EditReport
from randes_cli.specs import ITEM_SIZE, EditOptions, RunOptions, TensorInfo
from randes_cli.stats.stored import Statistics, norm_rows, stored_statistics, summaries
from randes_cli.workers import Progress, thread_count


class Editing:
    """One edit under way: the old bank, its units and steps, who comes or goes."""

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
        threads = thread_count(run.threads, self.manifest.base.tensors)
        self.passes = Passes(self.units, run, threads, progress)
        self.staying: list[Run] = []
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

    def source(self) -> Source:
        """The base, opened when first asked for."""
        if self.base is None:
            self.base = open_base(self.old, self.options.base)
            if self.base is not None:
                self.stack.callback(self.base.close)
        return bank_source(self.old, self.base)

    def _new_files(self) -> list[tuple[TensorInfo, SideFile]]:
        """Side files of the tasks that come, each content that the bank lacks once."""
        files = {f.digest: f for opened in self.opened for f in opened.side_files.values()}
        return [
            (TensorInfo(file_key(content), "U8", (file.size,)), file)
            for content, file in sorted(files.items())
            if file_key(content) not in self.old
        ]

    @contextmanager
    def _new_file(self) -> Iterator[OutputFile]:
        """The file that takes the old bank's name, once there is room for it."""
        incoming = sum(
            tensor.nbytes for p in self.participants for tensor in p.checkpoint.tensors.values()
        )
        added = incoming if self.participants and self.participants[0].sign > 0 else 0
        check_space(self.old.path.parent, self.old.header.file_size + added)
        with atomic_file(self.old.path, force=True) as file:
            file.reserve(self.old.header.file_size)
            self.staying = []
            yield file

    def _candidates(self) -> list[TensorInfo]:
        """Every tensor that the new bank may have: for the header's room alone."""
        made = list(self.old.header.tensors.values())
        for group, unit in self._places():
            made += sum_tensors(unit, group, 16, self.named)
        made += [tensor for tensor, _ in self._new_files()]
        made += [kept_tensor(c, self.source()) for c in self._copies()]
        return [*made, *closing_tensors()]

    def _copies(self) -> list[Copy]:
        return owned_copies(self.source(), self.participants) if self.participants else []

    def _places(self) -> list[tuple[int, Unit]]:
        """Every live superposition that there can be, in the order of the file."""
        units = sorted(self.units, key=lambda unit: -self.bits.get(unit, 16))
        groups = [g for g in range(self.manifest.groups) if g not in self.manifest.sealed]
        return [(group, unit) for group in groups for unit in units]

    def _place_sum(self, writer: BankWriter, group: int, unit: Unit) -> None:
        for tensor in sum_tensors(unit, group, self.bits[unit], self.named):
            writer.place(tensor)

    def _copy_sum(self, writer: BankWriter, group: int, unit: Unit) -> None:
        keys = [sum_key(group, name) for name in unit.names]
        self._copy(writer, [key for key in keys if key in self.old])

    def _copy_sealed(self, writer: BankWriter, groups: Iterable[int]) -> None:
        """Copy read-only groups whole, wide elements first: no padding."""
        starts = tuple(f"{kind}/{group}/" for group in groups for kind in ("sum", "scale"))
        keys = [key for key in self.old.header.tensors if key.startswith(starts)]
        keys.sort(key=lambda key: -ITEM_SIZE[self.old.info(key).dtype])
        self._copy(writer, keys)

    def _copy(self, writer: BankWriter, keys: Sequence[str]) -> None:
        """Place what stays; its bytes are copied by the next pass."""
        self.staying += place_copies(writer, self.old, keys)

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

    def _engine(self, writer: BankWriter) -> Superposer:
        return Superposer(
            base=self.base,
            participants=self.participants,
            writer=writer,
            exponents=self.steps,
            bits=self.bits,
            strip=self.passes.strip,
            write_base=False,
            old=self.old,
        )

    def _pass(
        self, engine: Superposer, units: Sequence[Unit], copies: Sequence[Copy], phase: str
    ) -> None:
        staying, self.staying = self.staying, []
        self.passes.superpose(engine, units, [*copies, *staying], phase)
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

    def _finish(self, writer: BankWriter, manifest: Manifest, statistics: Statistics) -> int:
        rows = len(norm_rows(manifest.base.tensors))
        shapes = statistics_shapes(rows, len(statistics.cells), len(manifest.tasks))
        for (key, shape), data in zip(shapes.items(), statistics.data(), strict=True):
            writer.add_whole(TensorInfo(key, "F64", shape), data.tobytes())
        others = [key for key in self.old.header.tensors if key.startswith("stats/")]
        self._copy(writer, [key for key in others if key not in shapes])
        for run in self.staying:
            run.copy(writer.out)
        return writer.finish(manifest)

    def _report(self, manifest: Manifest, statistics: Statistics, size: int) -> EditReport:
        incoming = sum(t.nbytes for p in self.participants for t in p.checkpoint.tensors.values())
        return EditReport(
            bank=str(self.old.path),
            dry_run=self.options.dry_run,
            bytes_before=self.old.header.file_size,
            bytes_after=size,
            read_bytes=incoming,
            buffer_bytes=self.passes.buffer_bytes(),
            before=self.before,
            after=summaries(manifest, statistics),
            estimated=tuple(sorted(statistics.estimated)),
        )
