"""`verify --against`: retrieved tasks measured against their originals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.core.kernel import Kernel
from randes_cli.core.overlap import Overlap
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import BankBase
from randes_cli.files.local.guard import reading
from randes_cli.files.source import Source
from randes_cli.limits import StrPath
from randes_cli.ops.compare import retrieved_and_true
from randes_cli.ops.originals import Original, Originals, open_originals
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import RunOptions
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import open_statistics, predict_bank
from randes_cli.workers import Progress, no_progress


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """One superposed tensor of one task, measured against the original.

    Attributes:
        cosine: of the retrieved delta with the original one.
        predicted: the same from the bank's norms.
        error: ‖retrieved − original‖ / ‖original − base‖.
    """

    name: str
    cosine: float
    predicted: float
    error: float


@dataclass(frozen=True, slots=True)
class TaskCheck:
    """One task measured against its original checkpoint.

    Attributes:
        exact: how many tensors are equal.
        original: whether the checkpoint is the one that was packed, by its fingerprint.
    """

    task: str
    cosine: float
    predicted: float
    error: float
    exact: int
    tensors: tuple[TensorCheck, ...]
    original: bool = True


@reading()
def measure(
    bank: BankFile,
    originals: Originals,
    run: RunOptions,
    *,
    base: StrPath | None = None,
    progress: Progress = no_progress,
) -> tuple[TaskCheck, ...]:
    """Retrieve tasks and compare them with their originals, streamed.

    Raises what `open_originals` raises, and MismatchError where an exact tensor differs.
    """
    with open_originals(bank, originals, run, base) as (opened, tasks):
        return tuple(_measure_task(bank, opened, one, run, progress) for one in tasks)


def _measure_task(
    bank: BankFile, base: BankBase | None, original: Original, run: RunOptions, progress: Progress
) -> TaskCheck:
    task, checkpoint = original.task, original.checkpoint
    retrieval = Retrieval(bank, base, task, run=run)
    found: dict[str, dict[int, Overlap]] = {}
    unlike: set[str] = set()

    def work(kernel: Kernel, piece: Piece) -> int:
        tensor = piece.tensor.name
        if piece.own or not retrieval.superposed(tensor):
            if not _same_bytes(retrieval, checkpoint, kernel, piece):
                unlike.add(tensor)
        else:
            pair = retrieved_and_true(retrieval, base, checkpoint, kernel, piece)
            found.setdefault(tensor, {})[piece.chunk] = Overlap.of(*pair)
        return piece.nbytes

    retrieval.workers.run(
        [piece for tensor in retrieval.tensors for piece in retrieval.pieces(tensor)],
        work,
        phase=f"measuring {task.name}",
        total=sum(tensor.nbytes for tensor in retrieval.tensors.values()),
        progress=progress,
    )
    _refuse_unlike(retrieval, unlike)
    check = _task_check(bank, retrieval, found)
    return replace(check, original=original.is_packed(run, progress))


def _same_bytes(retrieval: Retrieval, original: Source, kernel: Kernel, piece: Piece) -> bool:
    """Whether an exact piece comes back as the checkpoint has it."""
    ours, theirs = np.empty((2, piece.nbytes), np.uint8)
    retrieval.fill(kernel, piece, ours)
    original.read(piece.tensor.name, piece.start, theirs)
    return bool(np.array_equal(ours, theirs))


def _refuse_unlike(retrieval: Retrieval, unlike: set[str]) -> None:
    """Refuse a checkpoint that differs in what is kept exactly: it is not the one packed."""
    first = next((name for name in retrieval.tensors if name in unlike), None)
    if first is not None:
        raise MismatchError(
            f"task {retrieval.task.name}: exact tensor {first!r} differs from the checkpoint; "
            "is it the one that was packed?"
        )


def _task_check(
    bank: BankFile, retrieval: Retrieval, found: Mapping[str, Mapping[int, Overlap]]
) -> TaskCheck:
    statistics, tensors = open_statistics(bank), bank.manifest.base.tensors.values()
    column = statistics.indices.index(retrieval.task.index)
    rows = {name: row for row, name in enumerate(norm_rows(tensors))}
    prediction = predict_bank(bank.manifest, statistics)
    prediction = prediction.at([retrieval.coefficient] * len(statistics.indices))

    def predicted(name: str) -> float:
        return float(prediction.over(np.array([rows[retrieval.kept_name(name)]])).cosine[column])

    names = list(filter(retrieval.superposed, retrieval.once()))
    sums = {
        name: sum((one for _, one in sorted(found.get(name, {}).items())), Overlap())
        for name in names
    }
    whole = sum(sums.values(), Overlap())
    return TaskCheck(
        retrieval.task.name,
        whole.cosine,
        float(prediction.over().cosine[column]),
        _error(whole),
        len(retrieval.tensors) - len(names),
        tuple(TensorCheck(n, s.cosine, predicted(n), _error(s)) for n, s in sums.items()),
    )


def _error(found: Overlap) -> float:
    """The relative error; where nothing was to come back, what came."""
    return found.distance if found.error is None else found.error
