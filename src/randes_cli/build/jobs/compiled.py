"""Strip jobs that compiled code does whole: files that are open here, and nothing to explain.

What it cannot do, or finds wrong, is left to `strips`: it makes the same bytes, and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from randes_cli.build.jobs.jobs import JobRun, Part
from randes_cli.build.jobs.sums import Squares
from randes_cli.build.jobs.tally import Owner
from randes_cli.build.jobs.waiting import Waiting
from randes_cli.build.steps import Step as Grid
from randes_cli.core.arrays import Array, address
from randes_cli.core.compiled.run import Chunk, Kind, Step, packed
from randes_cli.core.energy import Energy
from randes_cli.files.bank.keys import base_key, sum_key
from randes_cli.files.digests import each_digest
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.source import Source, place_of
from randes_cli.specs import ITEM_SIZE, TensorInfo

#: What is told of a delta: as in `Energy`, and whether there is any.
_SUMS = ("squares", "crossed", "rests", "changed")
#: Units whose steps are kept: threads are at one or two of them.
_KEPT = 8


class _Elsewhere(Exception):
    """Something lies in no open file, or the job is of another kind."""


class Known:
    """A digest that is there already."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def update(self, data: object, /) -> None:
        raise AssertionError("a digest that is known takes no more")

    def digest(self) -> bytes:
        return self._value


def run_compiled(run: JobRun) -> bool:
    """Do a job in one call; False where it is to be done strip by strip."""
    rect, unit, runner = run.job.rect, run.unit, run.kernel.runner
    if rect.row1 > unit.rows or runner is None:
        return False
    tape = _tape_of(run)
    if tape.rows is None:
        return False
    chunk = Chunk(rect.start, rect.elements, unit.cols, unit.view, unit.signs)
    with ExitStack() as opened:
        there = _There(run, tape.rows, tape, opened)
        if there.written:  # one file, but for a bank in shards: an error may name another one
            opened.enter_context(there.written[0][0].written_by())
        found = runner.run(chunk, there.rows)
        if found is None:
            return False
        for out, count in there.written:
            out.sent(count)
    digests = each_digest(found["digest"])
    there.tell(digests)
    tape.tell(run, found, digests)
    run.bytes_read = tape.width * rect.elements
    return True


def _tape_of(run: JobRun) -> _Tape:
    """The steps of a job's unit, made when the first of its chunks is met."""
    job, kept = run.job, run.files.tapes
    key = id(job.unit), id(job.parts), job.only
    tape: _Tape | None = kept.get(key)
    if tape is None:
        tape = _Tape(run)
        if len(kept) >= _KEPT:
            kept.clear()
        kept[key] = tape
    return tape


class _Tape:
    """The steps of a unit's chunks, as for one that begins with its first element.

    Attributes:
        rows: the steps; None of what is to be done strip by strip.
        moves: bytes of each step's input for an element.
        width: of all together.
        stores: the steps that write: which, the tensor, and bits of an element.
        reads: those that read an input: which, whose, and the tensor.
        adds: those that add a delta: which, whose, and the tensor.
        kept: those that read a sum of the old bank.
    """

    def __init__(self, run: JobRun) -> None:
        self.job = run.job  # known by the identity of its parts, which are held
        self.stores = list[tuple[int, str, int]]()
        self.reads = list[tuple[int, Owner, str]]()
        self.adds = list[tuple[int, tuple[int, str]]]()
        self.kept = list[tuple[int, str]]()
        self.width = 0
        #: Rows point to bits of theirs: they are held.
        self._steps, self._moves = list[Step](), list[int]()
        try:
            for layer, name in enumerate(run.unit.names):
                if layer in run.layers:
                    self._base(run, layer, name)
            for part, position in run.job.sums():
                self._sum(run, part, position)
        except _Elsewhere:
            self._steps = []
        self.rows = packed(self._steps) if self._steps else None
        self.moves = np.array(self._moves, np.int64)

    def _add(self, step: Step, moves: int = 0) -> int:
        self._steps.append(step)
        self._moves.append(moves)
        return len(self._steps) - 1

    def _read(self, step: Step, owner: Owner, source: Source, tensor: TensorInfo) -> int:
        """Add a step that reads a tensor of a source."""
        place = place_of(source, tensor.name)
        if place is None:
            raise _Elsewhere
        size = ITEM_SIZE[tensor.dtype]
        at = self._add(step._replace(place=place, dtype=tensor.dtype), size)
        self.reads.append((at, owner, tensor.name))
        self.width += size
        return at

    def _base(self, run: JobRun, layer: int, name: str) -> None:
        base, step = run.files.base, Step(Kind.BASE, None, "F32", layer)
        if base is None:
            self._add(step)
            return
        tensor = base.tensors[name]
        at = self._read(step, "base", base, tensor)
        if run.files.write_base:
            self.stores.append((at, base_key(name), 8 * ITEM_SIZE[tensor.dtype]))

    def _sum(self, run: JobRun, part: Part, position: int) -> None:
        grid, old = part.step, run.files.old
        if grid is None or part.share.every > 1:
            raise _Elsewhere
        key, width = sum_key(part.group, run.unit.names[position]), str(grid.bits)
        if old is None or not part.kept:
            self._add(Step(Kind.BEGIN, None, width))
        else:
            place = old.where(key)
            if place is None:
                raise _Elsewhere
            self.kept.append((self._add(Step(Kind.BEGIN, place, width), grid.bits // 8), key))
        self._deltas(run, part, position, grid)
        self.stores.append((self._add(Step(Kind.STORE, None, width)), key, grid.bits))

    def _deltas(self, run: JobRun, part: Part, position: int, grid: Grid) -> None:
        for member in part.members:
            layer = run.orders[member.index][position]
            tensor = member.fit.superposed.get(run.unit.names[layer])
            if tensor is None:
                continue
            if tensor.matrix[0] != run.unit.rows:
                raise _Elsewhere
            flips, scale = run.flips(member, position), member.sign * 2.0**-grid.exponent
            step = Step(Kind.ADD, None, "", layer, None, flips, scale)
            at = self._read(step, member.index, member.source, tensor)
            self.adds.append((at, (member.index, tensor.name)))

    def tell(self, run: JobRun, found: Array, digests: Sequence[bytes]) -> None:
        """Note what a chunk came to, and the digest of what each step read."""
        run.inputs.update(((who, name), Known(digests[at])) for at, who, name in self.reads)
        run.old_sums.update((key, Known(digests[at])) for at, key in self.kept)
        places = [at for at, _ in self.adds]
        sums = (found[word][places].tolist() for word in _SUMS)
        for (_, key), squares, crossed, rests, changed in zip(self.adds, *sums, strict=True):
            run.energies[key] = Energy(squares, crossed, rests)
            run.changed.update([key] if changed else [])


class _There:
    """The steps of one chunk: where it is read, and where what is made of it goes.

    Attributes:
        written: files, and how many bytes of a chunk go to each.
    """

    def __init__(self, run: JobRun, rows: Array, tape: _Tape, opened: ExitStack) -> None:
        self.run, self.rect, self.rows = run, run.job.rect, rows.copy()
        self.rows["at"] += tape.moves * self.rect.start
        self.written = list[tuple[OutputFile, int]]()
        self._sums = list[tuple[int, str]]()
        self._squares = list[tuple[Waiting, Squares]]()
        for at, key, bits in tape.stores:
            waiting = run.files.waiting(key) if self.rows["kind"][at] == Kind.STORE else None
            if waiting is None:
                self._sums.append((at, key))
                self._file(at, key, bits, opened)
            elif not self._wait(at, bits, waiting):
                self._file(at, key, bits, opened)

    def _file(self, at: int, key: str, bits: int, opened: ExitStack) -> None:
        out, offset = opened.enter_context(self.run.files.writer.file_of(key))
        self.written.append((out, self.rect.elements * bits // 8))
        self.rows["into"][at], self.rows["to"][at] = out.fd, offset + self.rect.start * bits // 8

    def _wait(self, at: int, bits: int, waiting: Waiting) -> bool:
        """Of a sum that is to be cut squares are wanted; whether it waits in memory."""
        squares = waiting.room_for(self.rect)
        self._squares.append((waiting, squares))
        self.rows["along"][at], self.rows["across"][at] = map(address, squares)
        memory = waiting.memory
        if memory is not None:
            self.rows["memory"][at] = address(memory) + self.rect.start * bits // 8
        return memory is not None

    def tell(self, digests: Sequence[bytes]) -> None:
        """Note what was written."""
        self.run.sums.update((key, Known(digests[at])) for at, key in self._sums)
        for waiting, squares in self._squares:
            waiting.take(self.rect.start, squares)
            waiting.measured.add(self.rect.start)
