"""Jobs of a pass, and one of them under way: what `strips` and `compiled` both work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias, TypeVar

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.tally import Owner, Tally
from randes_cli.build.jobs.waiting import Waiting
from randes_cli.build.steps import Step
from randes_cli.core.arrays import Raw
from randes_cli.core.columns import bytes_of
from randes_cli.core.energy import Energy
from randes_cli.core.kernel import Kernel
from randes_cli.core.share import Share
from randes_cli.core.signs import Window
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import base_key
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.digests import hasher
from randes_cli.files.source import Source
from randes_cli.plan import WHOLE, Rect, Span, Unit, chunks
from randes_cli.specs import ITEM_SIZE, TensorInfo

K = TypeVar("K")


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

    `only` are the superpositions that it is about; None: all.
    """

    unit: Unit
    parts: tuple[Part, ...]
    chunk: int
    rect: Rect
    only: Places | None = None

    def sums(self) -> list[tuple[Part, int]]:
        """The superpositions that it makes: of which group, at which position."""
        return [
            (part, position)
            for part in self.parts
            for position in range(self.unit.layers)
            if self.only is None or (part.group, position) in self.only
        ]


def unit_jobs(
    unit: Unit, parts: tuple[Part, ...], only: Places | None = None, span: Span = WHOLE
) -> list[Job]:
    """The jobs of a unit, one a chunk of its rows and of those that resized tasks add.

    `span`: of these chunks.
    """
    grown = (t.matrix[0] for part in parts for p in part.members for t in p.tensors_of(unit))
    pieces = chunks(max([unit.rows, *grown]), unit.cols)
    return [
        Job(unit, parts, number, rect, only)
        for number, rect in enumerate(pieces)
        if span.holds(number)
    ]


def input_bytes(names: Sequence[str], parts: Sequence[Part], base: Source | None) -> int:
    """Input bytes that the jobs of units with these tensors read."""
    ours = 0 if base is None else bytes_of(base.tensors, names)
    members = (member for part in parts for member in part.members)
    return ours + sum(bytes_of(member.fit.superposed, names) for member in members)


def nothing_waits(key: str) -> None:
    """Every superposition is written to the bank."""


@dataclass(frozen=True)
class Files:
    """What a pass reads and writes. One object serves all threads.

    Attributes:
        base: None where it is all zeros.
        old: the bank that kept superpositions begin with.
        write_base: whether the base's strips are written into the bank as they are read.
        waiting: superpositions that wait to be cut.
        tapes: the steps of units under way, as `compiled` has them.
    """

    base: Source | None
    old: BankFile | None
    writer: TensorSink
    tally: Tally
    write_base: bool
    waiting: Callable[[str], Waiting | None] = nothing_waits
    tapes: dict[object, Any] = field(default_factory=dict)
    again: set[Unit] = field(default_factory=set)


class Running(Protocol):
    """A digest under way, or one that is known."""

    def update(self, data: Any, /) -> None:
        """Add bytes."""

    def digest(self) -> bytes:
        """That of all bytes so far."""


class JobRun:
    """One job under way: its running digests and what it adds to the tally."""

    def __init__(self, files: Files, kernel: Kernel, job: Job) -> None:
        self.files, self.kernel, self.job, self.unit = files, kernel, job, job.unit
        self._flips: dict[tuple[int, int], bytes] = {}
        self.inputs: dict[tuple[Owner, str], Running] = {}
        self.sums: dict[str, Running] = {}
        self.old_sums: dict[str, Running] = {}
        self.energies: dict[tuple[int, str], Energy] = {}
        self.changed: set[tuple[int, str]] = set()
        self.largest = 0.0
        self.peak = 0
        self.bytes_read = 0

    @cached_property
    def orders(self) -> dict[int, list[int]]:
        """Which layer of each participant lies at each position."""
        members = (p for part in self.job.parts for p in part.members)
        return {p.index: self.unit.order(p.seed, p.index) for p in members}

    @cached_property
    def layers(self) -> set[int]:
        """The layers of the base that the job's superpositions take deltas from."""
        if self.job.only is None:
            return set(range(self.unit.layers))
        return {
            self.orders[member.index][position]
            for part, position in self.job.sums()
            for member in part.members
        }

    def read(self, owner: Owner, source: Source, tensor: TensorInfo, rect: Rect) -> Raw:
        size = ITEM_SIZE[tensor.dtype]
        raw = self.kernel.buffer(rect.elements * size)
        source.read(tensor.name, rect.start * size, raw)
        self.bytes_read += len(raw)
        running(self.inputs, (owner, tensor.name)).update(raw)
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

    def flips(self, member: Participant, position: int) -> bytes:
        key = member.index, position
        if key not in self._flips:
            self._flips[key] = self.unit.flips(member.seed, position)
        return self._flips[key]

    def signs(self, member: Participant, position: int, rect: Rect, step: Step) -> Window:
        """± 1/step of a participant at a position, turned where its delta leaves."""
        scale = member.sign * 2.0**-step.exponent
        return self.unit.window(self.flips(member, position), rect, scale)

    def record(self) -> None:
        """Tell the tally and the writer what the whole chunk came to."""
        tally, writer, chunk = self.files.tally, self.files.writer, self.job.chunk
        read = {key: running.digest() for key, running in self.inputs.items()}
        tally.digested(chunk, read)
        for (owner, name), value in read.items() if self.files.write_base else ():
            if owner == "base":
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


def running(hashers: dict[K, Running], key: K) -> Running:
    """The running digest of a key, begun when first asked for."""
    found = hashers.get(key)
    if found is None:
        found = hashers[key] = hasher()
    return found
