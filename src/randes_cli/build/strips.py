"""Strip jobs: what `pack`, `add` and `remove` share.

A job is one chunk of one unit: it reads the base and every participant once, strip by strip,
adds the transformed deltas into the superposition, and writes and digests what it made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from randes_cli.build.sampled import BaseSample, clear_below, read_runs
from randes_cli.core.convert import widen
from randes_cli.core.energy import Energy
from randes_cli.core.grid import LIMIT
from randes_cli.core.kernel import Kernel, NonFinite, Overflow
from randes_cli.core.shuffle import layer_order
from randes_cli.errors import BankDamaged, CheckpointError
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import base_key, sum_dtype, sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import hasher
from randes_cli.plan import Rect, TaskFit, Unit, chunks
from randes_cli.specs import ITEM_SIZE, TensorInfo

Raw = NDArray[np.uint8]
F32 = NDArray[np.float32]


class Source(Protocol):
    """Where tensors come from: a checkpoint, or the base inside a bank."""

    @property
    def source(self) -> str:
        """What to call it in messages."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Its tensors by name."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Its ``__metadata__``."""

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the tensor's bytes from byte `start` of its data."""


def unit_order(unit: Unit, seed: int, index: int) -> list[int]:
    """σ of a task on a unit: which layer lies at each position."""
    return layer_order(
        unit.shuffle, seed=seed, index=index, layer_kind=unit.kind, layers=unit.layers
    )


def unit_bits(unit: Unit, seed: int, position: int) -> bytes:
    """The packed sign bits of a task at a position of a unit."""
    return unit.flips(seed, position)


@dataclass(frozen=True, slots=True)
class Participant:
    """One task whose deltas enter (or, with `sign` −1, leave) superpositions."""

    name: str
    index: int
    seed: int
    checkpoint: Source
    fit: TaskFit
    sign: int = 1
    group: int = 0

    def order(self, unit: Unit) -> list[int]:
        """σ of this task on a unit: which layer lies at each position."""
        return unit_order(unit, self.seed, self.index)

    def bits(self, unit: Unit, position: int) -> bytes:
        """The packed sign bits of this task at a position of a unit."""
        return unit_bits(unit, self.seed, position)

    def delta(self, base: BaseSample, name: str) -> F32 | None:
        """Θ_i − Θ_0 on a sample, zeros below a shorter task's rows; None where it has none."""
        tensor = self.fit.superposed.get(name)
        if tensor is None:
            return None
        delta, zero = read_runs(self.checkpoint, name, base.runs), base.values(name)
        if zero is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                np.subtract(delta, zero, out=delta)
            clear_below(delta, tensor.matrix[0], base.runs)
        if not np.isfinite(delta).all():
            at_fault: Source = self.checkpoint
            own = read_runs(at_fault, name, base.runs)
            if base.source is not None and np.isfinite(own).all():
                at_fault = base.source
            raise refuse_non_finite(at_fault, name)
        return delta


@dataclass(frozen=True, slots=True)
class Job:
    """One chunk of one unit."""

    unit: Unit
    chunk: int
    rect: Rect


@dataclass
class Tally:
    """What the jobs found, by participant (its place in the list) and tensor.

    Attributes:
        energy: sums over the delta in steps, by participant, tensor and chunk.
        changed: (participant, tensor) pairs with any delta at all.
        peaks: largest magnitude in steps that did not fit, by unit.
        largest: largest |delta| of units without a step.
        digests: chunk digests, by participant (−1: the base), tensor and chunk.
    """

    energy: dict[tuple[int, str], dict[int, Energy]] = field(default_factory=dict)
    changed: set[tuple[int, str]] = field(default_factory=set)
    peaks: dict[Unit, int] = field(default_factory=dict)
    largest: dict[Unit, float] = field(default_factory=dict)
    digests: dict[tuple[int, str], dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def joined(self, participant: int, tensors: Mapping[str, TensorInfo]) -> dict[str, bytes]:
        """Each tensor's chunk digests, joined."""
        return {
            name: b"".join(v for _, v in sorted(self.digests.get((participant, name), {}).items()))
            for name in tensors
        }


def height(unit: Unit, participants: list[Participant]) -> int:
    """Rows that a unit's jobs cover: the base's, and those that resized tasks add."""
    grown = (
        participant.fit.superposed[name].matrix[0]
        for participant in participants
        for name in unit.names
        if name in participant.fit.superposed
    )
    return max([unit.rows, *grown])


def sum_groups(unit: Unit, participants: list[Participant]) -> list[int]:
    """The groups whose superposition of a unit these participants enter or leave."""
    entered = (p for p in participants if any(name in p.fit.superposed for name in unit.names))
    return sorted({participant.group for participant in entered})


def unit_jobs(unit: Unit, participants: list[Participant]) -> list[Job]:
    """The jobs of a unit, one a chunk."""
    pieces = chunks(height(unit, participants), unit.cols)
    return [Job(unit, number, rect) for number, rect in enumerate(pieces)]


def refuse_non_finite(source: Source, name: str) -> CheckpointError:
    """The error for a NaN or an infinity."""
    return CheckpointError(f"{source.source}: tensor {name!a} has NaN or infinite values")


def is_finite(raw: Raw, dtype: str) -> bool:
    """Whether stored values are all finite in float32."""
    values = np.empty(len(raw) // ITEM_SIZE[dtype], np.float32)
    widen(raw, dtype, values)
    return bool(np.isfinite(values).all())


class Superposer:
    """Runs jobs. One object serves all threads; each thread brings its own kernel."""

    def __init__(
        self,
        *,
        base: Source | None,
        participants: list[Participant],
        writer: BankWriter,
        exponents: Mapping[Unit, int],
        bits: Mapping[Unit, int],
        strip: Callable[[Unit], int],
        write_base: bool,
        old: BankFile | None = None,
    ) -> None:
        self.base, self.participants, self.writer = base, participants, writer
        self.exponents, self.bits = exponents, bits
        self.strip, self.write_base, self.old = strip, write_base, old
        self.tally = Tally()

    def job_bytes(self, job: Job) -> int:
        """Input bytes that a job will read."""
        total = 0
        for name in job.unit.names:
            inside = job.rect.above(job.unit.rows)
            if self.base is not None and inside is not None:
                total += inside.elements * ITEM_SIZE[self.base.tensors[name].dtype]
            for participant in self.participants:
                tensor = participant.fit.superposed.get(name)
                part = job.rect.above(tensor.matrix[0]) if tensor else None
                if tensor is not None and part is not None:
                    total += part.elements * ITEM_SIZE[tensor.dtype]
        return total

    def run(self, kernel: Kernel, job: Job) -> int:
        """Do one job; return the input bytes that it read."""
        return _JobRun(self, kernel, job).run()


class _JobRun:
    """One job under way: its running digests and what it adds to the tally."""

    def __init__(self, plan: Superposer, kernel: Kernel, job: Job) -> None:
        self.plan, self.kernel, self.job, self.unit = plan, kernel, job, job.unit
        self.exponent = plan.exponents.get(job.unit)
        self.bits = plan.bits.get(job.unit, 16)
        self.orders = [p.order(job.unit) for p in plan.participants]
        self.flips: dict[tuple[int, int], bytes] = {}
        self.hashers: dict[tuple[int, str], Any] = {}
        self.groups = [
            group
            for group in sum_groups(job.unit, plan.participants)
            if self.exponent is None or plan.writer.placed(sum_key(group, job.unit.names[0]))
        ]
        places = [(group, name) for group in self.groups for name in job.unit.names]
        self.sums = {place: hasher() for place in places}
        self.old_sums = {place: hasher() for place in places}
        self.energy: dict[tuple[int, str], Energy] = {}
        self.peak = 0
        self.bytes_read = 0

    def run(self) -> int:
        for rect in self.job.rect.split(self.plan.strip(self.unit)):
            self._base_strip(rect)
            for group in self.groups:
                for position in range(self.unit.layers):
                    self._position_strip(rect, group, position)
        self._record()
        return self.bytes_read

    def _read(self, who: int, source: Source, tensor: TensorInfo, rect: Rect) -> Raw:
        size = ITEM_SIZE[tensor.dtype]
        raw = self.kernel.buffer(rect.elements * size)
        source.read(tensor.name, rect.start * size, raw)
        self.bytes_read += len(raw)
        running = self.hashers.get((who, tensor.name))
        if running is None:
            running = self.hashers[who, tensor.name] = hasher()
        running.update(raw)
        return raw

    def _base_strip(self, rect: Rect) -> None:
        inside = rect.above(self.unit.rows)
        if inside is None:
            return
        for layer, name in enumerate(self.unit.names):
            if self.plan.base is None:
                self.kernel.set_base(layer, None, "F32", inside.elements)
                continue
            tensor = self.plan.base.tensors[name]
            raw = self._read(-1, self.plan.base, tensor, inside)
            if self.plan.write_base:
                start = inside.start * ITEM_SIZE[tensor.dtype]
                self.plan.writer.write(base_key(name), start, raw)
            self.kernel.set_base(layer, raw, tensor.dtype, inside.elements)

    def _position_strip(self, rect: Rect, group: int, position: int) -> None:
        """Superpose a group at a position; a unit without a step is only looked through."""
        inside = rect.above(self.unit.rows)
        if inside is not None and self.exponent is not None:
            self.kernel.begin(inside.elements, self._codes(inside, group, position), self.bits)
        for who, participant in enumerate(self.plan.participants):
            if participant.group != group:
                continue
            layer = self.orders[who][position]
            tensor = participant.fit.superposed.get(self.unit.names[layer])
            whole = rect.above(tensor.matrix[0]) if tensor else None
            if tensor is None or whole is None:
                continue
            raw = self._read(who, participant.checkpoint, tensor, whole)
            common = whole.above(self.unit.rows)
            if common is not None:
                part = raw[: common.elements * ITEM_SIZE[tensor.dtype]]
                self._add(who, position, tensor, part, common)
        if inside is not None and self.exponent is not None:
            self._finish(inside, group, position)

    def _codes(self, rect: Rect, group: int, position: int) -> Raw | None:
        name = self.unit.names[position]
        old, key = self.plan.old, sum_key(group, name)
        if old is None or key not in old:
            return None
        size = self.bits // 8
        codes = np.empty(rect.elements * size, np.uint8)
        old.read_into(key, rect.start * size, codes)
        self.old_sums[group, name].update(codes)
        return codes

    def _add(self, who: int, position: int, tensor: TensorInfo, raw: Raw, rect: Rect) -> None:
        participant, name = self.plan.participants[who], tensor.name
        layer = self.orders[who][position]
        try:
            if self.exponent is None:
                largest = self.kernel.changed(layer, raw, tensor.dtype)
                if largest:
                    tally = self.plan.tally
                    with tally.lock:
                        before = tally.largest.get(self.unit, 0.0)
                        tally.largest[self.unit] = max(before, largest)
                        tally.changed.add((who, name))
                return
            if (who, position) not in self.flips:
                self.flips[who, position] = participant.bits(self.unit, position)
            scale = participant.sign * 2.0**-self.exponent
            signs = self.unit.window(self.flips[who, position], rect, scale)
            added = self.kernel.add(layer, raw, tensor.dtype, signs)
        except Overflow as overflow:
            self.peak = max(self.peak, overflow.peak)
        except NonFinite:
            at_fault: Source = participant.checkpoint
            if self.plan.base is not None and is_finite(raw, tensor.dtype):
                at_fault = self.plan.base
            raise refuse_non_finite(at_fault, name) from None
        else:
            if added.changed:
                self.plan.tally.changed.add((who, name))
            key = who, name
            self.energy[key] = self.energy.get(key, Energy()).plus(added.energy)

    def _finish(self, rect: Rect, group: int, position: int) -> None:
        codes, peak = self.kernel.finish(self.bits)
        if peak > LIMIT[self.bits]:
            self.peak = max(self.peak, peak)
            return
        name = self.unit.names[position]
        self.sums[group, name].update(codes)
        self.plan.writer.write(sum_key(group, name), rect.start * (self.bits // 8), codes)

    def _check_old(self) -> None:
        """An edit builds on sound bytes alone: it would hide damage under fresh digests."""
        old, chunk = self.plan.old, self.job.chunk
        if old is None or self.exponent is None:
            return
        for (group, name), running in self.old_sums.items():
            key = sum_key(group, name)
            if key in old and running.digest() != old.digest(key, chunk):
                raise BankDamaged(f"{old.path}: tensor {key!a} is damaged (see: randes verify)")

    def _record(self) -> None:
        tally, chunk = self.plan.tally, self.job.chunk
        for (who, name), running in self.hashers.items():
            value = running.digest()
            tally.digests.setdefault((who, name), {})[chunk] = value
            if who < 0 and self.plan.write_base:
                self.plan.writer.set_digest(base_key(name), chunk, value)
        if self.exponent is None:
            return
        if self.peak:
            with tally.lock:
                tally.peaks[self.unit] = max(tally.peaks.get(self.unit, 0), self.peak)
            return
        for key, energy in self.energy.items():
            tally.energy.setdefault(key, {})[chunk] = energy
        if self.job.rect.above(self.unit.rows) is None:
            return
        self._check_old()
        for (group, name), running in self.sums.items():
            self.plan.writer.set_digest(sum_key(group, name), chunk, running.digest())


def sum_tensors(
    unit: Unit, group: int, bits: int, base: Mapping[str, TensorInfo]
) -> list[TensorInfo]:
    """The superposition tensors of a unit, as a bank stores them."""
    return [
        TensorInfo(sum_key(group, name), sum_dtype(bits), base[name].shape) for name in unit.names
    ]
