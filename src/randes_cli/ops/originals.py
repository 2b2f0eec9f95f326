"""Original checkpoints of a bank's tasks, whose deltas can be read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from randes_cli.build.tasks import reopen
from randes_cli.core.arrays import F32
from randes_cli.errors import MismatchError
from randes_cli.files.bank import BankFile
from randes_cli.files.base import BankBase, bank_source
from randes_cli.files.guard import check_steady
from randes_cli.files.records import TaskRecord
from randes_cli.files.source import Source, read_values
from randes_cli.fit import resized
from randes_cli.limits import StrPath, as_source
from randes_cli.ops.watched import Watched
from randes_cli.plan import Rect
from randes_cli.read.task_tensors import TaskTensors
from randes_cli.specs import FLOAT_DTYPES, OpenOptions, RunOptions
from randes_cli.workers import Progress

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
            if twin.shape != tensor.shape and not resized(twin, tensor):
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
    bank: BankFile,
    base: BankBase | None,
    originals: Originals,
    *,
    allow_pickle: bool = False,
) -> Iterator[list[Original]]:
    """The checkpoints of tasks.

    Raises MissingError for a task that is not in the bank, MismatchError for a checkpoint with
    other tensors than the task.
    """
    with ExitStack() as stack:
        made = []
        for name, source in originals.items():
            task = bank.task(name)
            leave = OpenOptions(allow_pickle=allow_pickle).recorded(task.pickle, task.layout)
            opened = reopen(stack, name, as_source(source), bank_source(bank, base), leave)
            checkpoint = Watched(opened.source)
            if checkpoint.tensors != TaskTensors(bank, task).tensors:
                raise MismatchError(f"{source}: has other tensors than task {name}")
            made.append(Original(task, checkpoint))
        yield made
        check_steady()
