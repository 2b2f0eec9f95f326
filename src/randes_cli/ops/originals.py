"""Original checkpoints of a bank's tasks, whose deltas can be read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from randes_cli.build.inputs.tasks import reopen
from randes_cli.core.arrays import F32, Raw
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import BankBase, bank_base, bank_source
from randes_cli.files.digests import digest, fingerprint
from randes_cli.files.local.guard import check_steady
from randes_cli.files.source import Source, read_values
from randes_cli.fit import resized
from randes_cli.limits import StrPath, as_source, sources_by_task
from randes_cli.plan import Rect, chunks
from randes_cli.read.task_tensors import TaskTensors
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, OpenOptions, RunOptions, TensorInfo
from randes_cli.workers import Progress, run_chunks

#: Checkpoints by task.
Originals = Mapping[str, StrPath]


@dataclass(frozen=True, slots=True)
class Original:
    """A task's record and the checkpoint that it was packed from."""

    task: TaskRecord
    checkpoint: Watched

    def is_packed(self, run: RunOptions, progress: Progress) -> bool:
        """Whether it is the one that was packed, by its fingerprint; reads what was not read."""
        return self.checkpoint.fingerprint(run, progress) == self.task.fingerprint

    def delta(self, base: Source | None, name: str, rect: Rect) -> F32 | None:
        """Θ_i − Θ_0 on a rectangle, zeros past a shorter task's rows; None where it has none."""
        tensor = self.checkpoint.tensors.get(name)
        if tensor is None or tensor.dtype not in FLOAT_DTYPES:
            return None
        if base is not None:
            twin = base.tensors[name]
            packed = tensor.shape in (twin.shape, self.task.shapes.get(name))
            if not packed and not resized(twin, tensor):
                return None
        made = np.zeros(rect.elements, np.float32)
        inside = rect.above(tensor.matrix[0])
        if inside is not None:
            part = made[: inside.elements]
            part += read_values(self.checkpoint, name, [inside])
            if base is not None:
                part -= read_values(base, name, [inside])
        return made


@contextmanager
def open_originals(
    bank: BankFile, originals: Originals, run: RunOptions, base: StrPath | None
) -> Iterator[tuple[BankBase | None, list[Original]]]:
    """The bank's base (of another place, where that is given), and the checkpoints of tasks.

    Raises UsageError for what is no table, MissingError for a task that is not in the bank,
    MismatchError for a checkpoint with other tensors than the task.
    """
    with ExitStack() as stack:
        below, made = stack.enter_context(bank_base(bank, base, allow_pickle=run.allow_pickle)), []
        for name, source in sources_by_task(originals).items():
            task = bank.task(name)
            leave = OpenOptions(allow_pickle=run.allow_pickle).recorded(task.pickle, task.layout)
            opened = reopen(stack, name, as_source(source), bank_source(bank, below), leave)
            checkpoint = Watched(opened.source)
            if checkpoint.tensors != TaskTensors(bank, task).tensors:
                raise MismatchError(f"{source}: has other tensors than task {name}")
            made.append(Original(task, checkpoint))
        yield below, made
        check_steady()


class Watched:
    """A source that digests the whole chunks which are read of it."""

    def __init__(self, inner: Source) -> None:
        self.inner, self.tensors = inner, inner.tensors
        self.source, self.metadata = inner.source, inner.metadata
        self._found: dict[tuple[str, int], bytes] = {}
        #: Number and length of each chunk of a tensor, by its first byte.
        self._chunks: dict[str, Mapping[int, tuple[int, int]]] = {}

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the tensor's bytes from byte `start` of its data."""
        self.inner.read(name, start, out)
        number, nbytes = self._places(self.tensors[name]).get(start, (-1, -1))
        if nbytes == len(out) and (name, number) not in self._found:
            self._found[name, number] = digest(out)

    def _places(self, tensor: TensorInfo) -> Mapping[int, tuple[int, int]]:
        found = self._chunks.get(tensor.name)
        if found is None:
            size = ITEM_SIZE[tensor.dtype]
            found = {
                rect.start * size: (number, rect.elements * size)
                for number, rect in enumerate(chunks(*tensor.matrix))
            }
            self._chunks[tensor.name] = found
        return found

    def fingerprint(self, run: RunOptions, progress: Progress) -> str:
        """That of its content. Reads what was not read as whole chunks."""

        def work(name: str, number: int, rect: Rect) -> int:
            nbytes = rect.elements * ITEM_SIZE[self.tensors[name].dtype]
            if (name, number) not in self._found:
                start = rect.start * ITEM_SIZE[self.tensors[name].dtype]
                self.read(name, start, np.empty(nbytes, np.uint8))
            return nbytes

        left = [tensor for tensor in self.tensors.values() if not self._whole(tensor)]
        run_chunks(left, work, run, phase=f"reading {self.source}", progress=progress)
        joined = {
            name: b"".join(self._found[name, n] for n in range(len(self._places(tensor))))
            for name, tensor in self.tensors.items()
        }
        return fingerprint(self.tensors, joined)

    def _whole(self, tensor: TensorInfo) -> bool:
        numbers = range(len(self._places(tensor)))
        return all((tensor.name, number) in self._found for number in numbers)
