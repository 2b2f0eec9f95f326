"""Strip jobs that compiled code does whole: files that are open here, and nothing to explain.

What it cannot do, or finds wrong, is left to `strips`: it makes the same bytes, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from randes_cli.build.jobs import JobRun, Part
from randes_cli.build.steps import Step as Grid
from randes_cli.core.energy import Energy
from randes_cli.core.fused_run import Chunk, Kind, Made, Step
from randes_cli.files.bank.keys import base_key, sum_key
from randes_cli.files.disk import OutputFile
from randes_cli.files.source import Source, place_of
from randes_cli.specs import ITEM_SIZE, TensorInfo


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
    rect, unit = run.job.rect, run.unit
    if rect.row1 > unit.rows:
        return False
    chunk = Chunk(rect.start, rect.elements, unit.cols, unit.view, unit.signs)
    with ExitStack() as opened:
        try:
            tape = _Tape(run, opened)
        except _Elsewhere:
            return False
        if tape.written:  # one file, but for a bank in shards: an error may name another one
            opened.enter_context(tape.written[0][0].written_by())
        runner = run.kernel.runner
        found = runner.run(chunk, tape.steps) if runner else None
        if found is None:
            return False
        for out, count in tape.written:
            out.sent(count)
    for made, note in zip(found, tape.notes, strict=True):
        note(made)
    run.bytes_read = tape.bytes_read
    return True


def _nothing(made: Made) -> None:
    pass


class _Tape:
    """The steps of a job, and what is to be done with what each finds."""

    def __init__(self, run: JobRun, opened: ExitStack) -> None:
        self.run, self.opened = run, opened
        self.steps: list[Step] = []
        self.notes: list[Callable[[Made], None]] = []
        self.bytes_read = 0
        self.written: list[tuple[OutputFile, int]] = []
        for layer, name in enumerate(run.unit.names):
            if layer in run.layers:
                self._base(layer, name)
        for part, position in run.job.sums():
            self._sum(part, position)

    def _add(self, step: Step, note: Callable[[Made], None]) -> None:
        self.steps.append(step)
        self.notes.append(note)

    def _place(self, source: Source, tensor: TensorInfo) -> tuple[int, int]:
        """Where this chunk of a source's tensor lies."""
        found = place_of(source, tensor.name)
        if found is None:
            raise _Elsewhere
        size = ITEM_SIZE[tensor.dtype]
        self.bytes_read += self.run.job.rect.elements * size
        return found[0], found[1] + self.run.job.rect.start * size

    def _target(self, key: str, size: int) -> tuple[int, int]:
        """Where this chunk of a tensor of the bank, of `size` bits an element, goes."""
        out, offset = self.opened.enter_context(self.run.files.writer.file_of(key))
        rect = self.run.job.rect
        self.written.append((out, rect.elements * size // 8))
        return out.fd, offset + rect.start * size // 8

    def _base(self, layer: int, name: str) -> None:
        files, inputs = self.run.files, self.run.inputs
        if files.base is None:
            self._add(Step(Kind.BASE, None, "F32", layer), _nothing)
            return
        tensor = files.base.tensors[name]
        size = 8 * ITEM_SIZE[tensor.dtype]
        to = self._target(base_key(name), size) if files.write_base else None

        def note(made: Made) -> None:
            inputs["base", name] = Known(made.digest)

        self._add(Step(Kind.BASE, self._place(files.base, tensor), tensor.dtype, layer, to), note)

    def _sum(self, part: Part, position: int) -> None:
        run, grid = self.run, part.step
        if grid is None or part.share.every > 1:
            raise _Elsewhere
        key = sum_key(part.group, run.unit.names[position])
        width, old = str(grid.bits), run.files.old

        def note_old(made: Made) -> None:
            run.old_sums[key] = Known(made.digest)

        kept = old.where(key) if old is not None and part.kept else (-1, 0)
        if kept is None:
            raise _Elsewhere
        if kept[0] < 0:
            self._add(Step(Kind.BEGIN, None, width), _nothing)
        else:
            at = kept[0], kept[1] + run.job.rect.start * grid.bits // 8
            self._add(Step(Kind.BEGIN, at, width), note_old)
        self._deltas(part, position, grid)
        self._store(key, grid)

    def _store(self, key: str, grid: Grid) -> None:
        """Where a sum goes: one that waits to be cut has no digest, but squares."""
        run, rect = self.run, self.run.job.rect
        waiting = run.files.waiting(key)
        step = Step(Kind.STORE, None, str(grid.bits))
        if waiting is None:

            def note_new(made: Made) -> None:
                run.sums[key] = Known(made.digest)

            self._add(step._replace(to=self._target(key, grid.bits)), note_new)
            return
        squares, memory = waiting.room_for(rect), waiting.memory

        def note_squares(made: Made) -> None:
            waiting.take(rect.start, squares)
            waiting.measured.add(rect.start)

        size = grid.bits // 8
        part = None if memory is None else memory[rect.start * size :]
        to = self._target(key, grid.bits) if part is None else part
        self._add(step._replace(to=to, squares=squares), note_squares)

    def _deltas(self, part: Part, position: int, grid: Grid) -> None:
        run = self.run
        for member in part.members:
            layer = run.orders[member.index][position]
            tensor = member.fit.superposed.get(run.unit.names[layer])
            if tensor is None:
                continue
            if tensor.matrix[0] != run.unit.rows:
                raise _Elsewhere
            key = member.index, tensor.name

            def note(made: Made, key: tuple[int, str] = key) -> None:
                run.inputs[key] = Known(made.digest)
                run.energies[key] = run.energies.get(key, Energy()).plus(made.energy)
                run.changed.update([key] if made.changed else [])

            place = self._place(member.source, tensor)
            flips, scale = run.flips(member, position), member.sign * 2.0**-grid.exponent
            self._add(Step(Kind.ADD, place, tensor.dtype, layer, None, flips, scale), note)
