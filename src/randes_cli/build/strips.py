"""Strip jobs: the one place where deltas enter and leave superpositions.

A job is one chunk of one unit: it reads the base and every participant once, strip by strip,
adds the transformed deltas into the superpositions, and writes and digests what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from randes_cli.build.participants import Participant
from randes_cli.build.steps import Step
from randes_cli.build.tally import Owner, Tally
from randes_cli.core.arrays import Raw
from randes_cli.core.energy import Energy
from randes_cli.core.grid import LIMIT
from randes_cli.core.kernel import Kernel, NonFinite, Overflow, code_dtype
from randes_cli.core.share import Share
from randes_cli.core.signs import Window
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import base_key, sum_key
from randes_cli.files.digests import hasher
from randes_cli.files.source import Source, not_finite
from randes_cli.files.tensor_sink import TensorSink
from randes_cli.plan import Rect, Unit, chunks, tensor_bytes
from randes_cli.specs import ITEM_SIZE, TensorInfo


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes of one group's superposition of a unit.

    Attributes:
        members: the participants of the group whose deltas enter or leave it.
        step: its grid; None where the deltas are only looked through.
        kept: whether it begins with the old bank's integers, and not at zero.
        share: the elements that it has.
    """

    group: int
    members: tuple[Participant, ...]
    step: Step | None
    kept: bool
    share: Share


#: Superpositions of a unit: (group, position).
Places: TypeAlias = frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Job:
    """One chunk of one unit.

    `only` are the superpositions that it is about, as (group, position); None: all.
    """

    unit: Unit
    parts: tuple[Part, ...]
    chunk: int
    rect: Rect
    only: Places | None = None

    def is_about(self, group: int, position: int) -> bool:
        """Whether it makes a group's superposition at a position of the unit."""
        return self.only is None or (group, position) in self.only


def unit_jobs(unit: Unit, parts: tuple[Part, ...], only: Places | None = None) -> list[Job]:
    """The jobs of a unit, one a chunk of its rows and of those that resized tasks add."""
    grown = (t.matrix[0] for part in parts for p in part.members for t in p.tensors_of(unit))
    pieces = chunks(max([unit.rows, *grown]), unit.cols)
    return [Job(unit, parts, number, rect, only) for number, rect in enumerate(pieces)]


def unit_bytes(unit: Unit, parts: Sequence[Part], base: Source | None) -> int:
    """Input bytes that the jobs of a unit read."""
    ours = 0 if base is None else tensor_bytes(base.tensors[name] for name in unit.names)
    return ours + sum(tensor_bytes(p.tensors_of(unit)) for part in parts for p in part.members)


@dataclass(frozen=True)
class Files:
    """What a pass reads and writes. One object serves all threads.

    Attributes:
        base: None where it is all zeros.
        old: the bank that kept superpositions begin with.
        write_base: whether the base's strips are written into the bank as they are read.
    """

    base: Source | None
    old: BankFile | None
    writer: TensorSink
    tally: Tally
    write_base: bool


def run_job(files: Files, kernel: Kernel, strip: int, job: Job) -> int:
    """Do one job in strips of `strip` elements; return the input bytes that it read.

    Raises CheckpointError for values that are not finite, BankDamaged for old sums that are not
    those written: an edit builds on sound bytes alone, for it would hide damage under new digests.
    """
    run = _JobRun(files, kernel, job)
    sums = [
        _Sum(run, part, n)
        for part in job.parts
        for n in range(job.unit.layers)
        if job.is_about(part.group, n)
    ]
    for rect in job.rect.split(strip):
        run.base_strip(rect)
        for one in sums:
            one.strip(rect)
    run.record()
    return run.bytes_read


class _JobRun:
    """One job under way: its running digests and what it adds to the tally."""

    def __init__(self, files: Files, kernel: Kernel, job: Job) -> None:
        self.files, self.kernel, self.job, self.unit = files, kernel, job, job.unit
        members = [p for part in job.parts for p in part.members]
        self.orders = {p.index: job.unit.order(p.seed, p.index) for p in members}
        self.layers = self._layers()
        self.flips: dict[tuple[int, int], bytes] = {}
        self.inputs: dict[tuple[Owner, str], Any] = {}
        self.sums: dict[str, Any] = {}
        self.old_sums: dict[str, Any] = {}
        self.energies: dict[tuple[int, str], Energy] = {}
        self.changed: set[tuple[int, str]] = set()
        self.largest = 0.0
        self.peak = 0
        self.bytes_read = 0

    def _layers(self) -> set[int]:
        """The layers of the base that the job's superpositions take deltas from."""
        job = self.job
        if job.only is None:
            return set(range(self.unit.layers))
        return {
            self.orders[member.index][position]
            for part in job.parts
            for member in part.members
            for position in range(self.unit.layers)
            if job.is_about(part.group, position)
        }

    def read(self, owner: Owner, source: Source, tensor: TensorInfo, rect: Rect) -> Raw:
        size = ITEM_SIZE[tensor.dtype]
        raw = self.kernel.buffer(rect.elements * size)
        source.read(tensor.name, rect.start * size, raw)
        self.bytes_read += len(raw)
        _running(self.inputs, (owner, tensor.name)).update(raw)
        return raw

    def base_strip(self, rect: Rect) -> None:
        """Give the kernel the base's strip of every layer."""
        inside, base = rect.above(self.unit.rows), self.files.base
        if inside is None:
            return
        for layer, name in enumerate(self.unit.names):
            if layer not in self.layers:
                continue
            if base is None:
                self.kernel.set_base(layer, None, "F32", inside.elements)
                continue
            tensor = base.tensors[name]
            raw = self.read("base", base, tensor, inside)
            if self.files.write_base:
                start = inside.start * ITEM_SIZE[tensor.dtype]
                self.files.writer.write(base_key(name), start, raw)
            self.kernel.set_base(layer, raw, tensor.dtype, inside.elements)

    def signs(self, member: Participant, position: int, rect: Rect, step: Step) -> Window:
        """± 1/step of a participant at a position, turned where its delta leaves."""
        key = member.index, position
        if key not in self.flips:
            self.flips[key] = self.unit.flips(member.seed, position)
        scale = member.sign * 2.0**-step.exponent
        return self.unit.window(self.flips[key], rect, scale)

    def record(self) -> None:
        """Tell the tally and the writer what the whole chunk came to."""
        tally, writer, chunk = self.files.tally, self.files.writer, self.job.chunk
        for (owner, name), running in self.inputs.items():
            value = running.digest()
            tally.digested(owner, name, chunk, value)
            if owner == "base" and self.files.write_base:
                writer.set_digest(base_key(name), chunk, value)
        tally.differs(self.changed)
        if self.largest:
            tally.appeared(self.unit, self.largest)
        if self.peak:
            tally.overflowed(self.unit, self.peak)
            return
        tally.summed(chunk, self.energies)
        self._check_old()
        for key, running in self.sums.items():
            writer.set_digest(key, chunk, running.digest())

    def _check_old(self) -> None:
        old, chunk = self.files.old, self.job.chunk
        for key, running in self.old_sums.items():
            if old is not None and running.digest() != old.digest(key, chunk):
                raise old.damaged(key)


class _Sum:
    """One tensor of the bank in a job: a group's superposition at one position of the unit."""

    def __init__(self, run: _JobRun, part: Part, position: int) -> None:
        self.run, self.part, self.position = run, part, position
        self.key = sum_key(part.group, run.unit.names[position])

    def strip(self, rect: Rect) -> None:
        """Superpose a strip; without a step only look through the deltas."""
        run, step = self.run, self.part.step
        inside = rect.above(run.unit.rows)
        if inside is not None and step is not None:
            run.kernel.begin(inside.elements, self._old_codes(inside, step.bits), step.bits)
        for member in self.part.members:
            layer = run.orders[member.index][self.position]
            tensor = member.fit.superposed.get(run.unit.names[layer])
            whole = rect.above(tensor.matrix[0]) if tensor else None
            if tensor is None or whole is None:
                continue
            raw = run.read(member.index, member.source, tensor, whole)
            common = whole.above(run.unit.rows)
            if common is not None:
                part = raw[: common.elements * ITEM_SIZE[tensor.dtype]]
                self._add(member, layer, tensor, part, common)
        if inside is not None and step is not None:
            self._store(inside, step.bits)

    def _old_codes(self, rect: Rect, bits: int) -> Raw | None:
        old, share = self.run.files.old, self.part.share
        if old is None or not self.part.kept:
            return None
        if share.every > 1:  # its digests are not those of a job: `Passes` compares them
            first, last = share.place(rect.start), share.place(rect.start + rect.elements)
            held = np.empty((last - first) * bits // 8, np.uint8)
            old.read_into(self.key, first * bits // 8, held)
            units = share.spread(held.view(code_dtype(bits)), rect.start, rect.elements)
            return units.view(np.uint8)
        codes = np.empty(rect.elements * bits // 8, np.uint8)
        old.read_into(self.key, rect.start * bits // 8, codes)
        _running(self.run.old_sums, self.key).update(codes)
        return codes

    def _add(
        self, member: Participant, layer: int, tensor: TensorInfo, raw: Raw, rect: Rect
    ) -> None:
        run, step, key = self.run, self.part.step, (member.index, tensor.name)
        try:
            if step is None:
                largest = run.kernel.changed(layer, raw, tensor.dtype)
                run.largest = max(run.largest, largest)
                run.changed.update([key] if largest else [])
                return
            signs = run.signs(member, self.position, rect, step)
            added = run.kernel.add(layer, raw, tensor.dtype, signs)
        except Overflow as overflow:
            run.peak = max(run.peak, overflow.peak)
        except NonFinite:
            base = run.files.base
            raise not_finite(tensor.name, *filter(None, (base, member.source))) from None
        else:
            run.changed.update([key] if added.changed else [])
            run.energies[key] = run.energies.get(key, Energy()).plus(added.energy)

    def _store(self, rect: Rect, bits: int) -> None:
        if self.part.share.every > 1:
            self._store_share(rect, bits)
            return
        codes, peak = self.run.kernel.finish(bits)
        if peak > LIMIT[bits]:
            self.run.peak = max(self.run.peak, peak)
            return
        _running(self.run.sums, self.key).update(codes)
        self.run.files.writer.write(self.key, rect.start * bits // 8, codes)

    def _store_share(self, rect: Rect, bits: int) -> None:
        """Only what is stored must fit in 8 bits, all of the sum in 16."""
        share = self.part.share
        codes, peak = self.run.kernel.finish(16)
        if peak <= LIMIT[16]:
            units = share.take(codes.view(np.int16), rect.start)
            peak = max(int(units.max()), -int(units.min())) if units.size else 0
        if peak > LIMIT[bits]:
            self.run.peak = max(self.run.peak, peak)
            return
        start = share.place(rect.start) * bits // 8
        self.run.files.writer.write(self.key, start, units.astype(code_dtype(bits)))


def _running(hashers: dict[Any, Any], key: object) -> Any:
    """The running digest of a key, begun when first asked for."""
    found = hashers.get(key)
    if found is None:
        found = hashers[key] = hasher()
    return found
