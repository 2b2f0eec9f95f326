"""`verify`: is every byte of a bank what was written, and how near do tasks come back?"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from randes_cli.build.tasks import reopen
from randes_cli.core.arrays import Raw
from randes_cli.core.convert import all_finite
from randes_cli.core.kernel import Kernel
from randes_cli.core.overlap import Overlap
from randes_cli.errors import CheckpointError, InputOutputError, MismatchError
from randes_cli.files.bank import BankFile, possible_statistics
from randes_cli.files.bank_keys import (
    CHECKS,
    NORMS,
    ROUNDED,
    base_key,
    file_key,
    own_key,
    parse_key,
    scale_key,
    sum_key,
)
from randes_cli.files.base import BankBase, bank_base, bank_source
from randes_cli.files.digests import digest
from randes_cli.files.guard import reading
from randes_cli.files.source import Source
from randes_cli.ops.compare import retrieved_and_true
from randes_cli.plan import chunks
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import ITEM_SIZE, OpenOptions, RunOptions, TensorInfo
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import predict_bank, stored_statistics
from randes_cli.stats.summaries import summaries
from randes_cli.workers import Progress, no_progress, run_parallel, thread_count


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
    """One task measured against its original checkpoint; `exact` counts equal tensors."""

    task: str
    cosine: float
    predicted: float
    error: float
    exact: int
    tensors: tuple[TensorCheck, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        damaged: tensors of the bank whose bytes are not those written.
        hurt: tasks that cannot be retrieved whole, each with the damaged tensors it needs.
        whole: tasks that can.
        lost: tasks whose deltas do not come back, each with why and what to do.
        against: measurements, where originals were given.
    """

    bank: str
    quick: bool
    bytes_checked: int
    damaged: tuple[str, ...]
    hurt: dict[str, tuple[str, ...]]
    whole: tuple[str, ...]
    lost: dict[str, str]
    against: tuple[TaskCheck, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged


def _lost(bank: BankFile) -> dict[str, str]:
    found = summaries(bank.manifest, stored_statistics(bank))
    return {task.name: task.lost for task in found if task.lost}


def needed_keys(bank: BankFile, name: str) -> set[str]:
    """The tensors of a bank that retrieving a task reads."""
    retrieval = Retrieval(bank, None, bank.task(name))
    task = retrieval.task
    keys = {own_key(name, n) for n in [*task.own, *task.shapes]}
    keys |= {file_key(content) for content in task.files.values()}
    for tensor in retrieval.tensors:
        if retrieval.kept_name(tensor) not in task.own:
            keys.add(base_key(retrieval.kept_name(tensor)))
            if retrieval.superposed(tensor):
                held = retrieval.held(tensor).name
                keys |= {sum_key(task.group, held), scale_key(task.group, held)}
    if retrieval.untuned:
        keys |= {NORMS, ROUNDED}
    return keys & set(bank.header.tensors)


def verify(
    bank: BankFile,
    run: RunOptions,
    *,
    quick: bool = False,
    progress: Progress = no_progress,
) -> VerifyReport:
    """Compare every byte of an open bank with its digests.

    Opening has already checked header, digests and manifest; `quick` adds the statistics only.
    """
    keys = [key for key in bank.header.tensors if key != CHECKS]
    if quick:
        keys = [key for key in keys if parse_key(key).kind in ("stats", "manifest")]
    jobs = [(key, n, rect) for key in keys for n, rect in _chunks(bank.info(key))]
    total = sum(bank.info(key).nbytes for key in keys)
    damaged: set[str] = set()

    def work(state: threading.local, job: tuple[str, int, tuple[int, int]]) -> int:
        key, number, (start, count) = job
        buffer = getattr(state, "buffer", None)
        if buffer is None or len(buffer) < count:
            buffer = state.buffer = np.empty(max(count, 2**22), np.uint8)
        raw = buffer[:count]
        try:
            bank.read_into(key, start, raw)
        except (InputOutputError, CheckpointError):  # a bad sector, or cut off meanwhile
            damaged.add(key)
            return count
        if digest(raw) != bank.digest(key, number) or not _possible(bank.info(key), raw):
            damaged.add(key)
        return count

    run_parallel(
        jobs,
        threading.local,
        work,
        threads=thread_count(run.threads, bank.header.tensors.values()),
        phase="verifying",
        total=total,
        progress=progress,
    )
    hurt = {}
    for task in bank.manifest.tasks if damaged else ():
        found = needed_keys(bank, task.name) & damaged
        if found:
            hurt[task.name] = tuple(sorted(found))
    return VerifyReport(
        bank=str(bank.path),
        quick=quick,
        bytes_checked=total + bank.header.size + bank.info(CHECKS).nbytes,
        damaged=tuple(sorted(damaged)),
        hurt=hurt,
        whole=tuple(task.name for task in bank.manifest.tasks if task.name not in hurt),
        lost={} if damaged else _lost(bank),
    )


def _possible(info: TensorInfo, raw: Raw) -> bool:
    """Whether scales and statistics are such as a writer makes: a forger's digests are right."""
    kind = parse_key(info.name).kind
    if kind == "scale":
        return all_finite(raw, info.dtype)
    if kind == "stats" and info.dtype == "F64":
        return possible_statistics(info.name, raw.view(np.float64))
    return True


def _chunks(tensor: TensorInfo) -> list[tuple[int, tuple[int, int]]]:
    size = ITEM_SIZE[tensor.dtype]
    return [
        (number, (rect.start * size, rect.elements * size))
        for number, rect in enumerate(chunks(*tensor.matrix))
    ]


@reading()
def measure(
    bank: BankFile,
    originals: Sequence[tuple[str, str]],
    run: RunOptions,
    *,
    base: str | None = None,
    coefficient: float | None = None,
    opening: OpenOptions | None = None,
    progress: Progress = no_progress,
) -> tuple[TaskCheck, ...]:
    """Retrieve tasks and compare them with their originals, (task, checkpoint) pairs, streamed."""
    leave = opening or OpenOptions(allow_pickle=run.allow_pickle)
    with bank_base(bank, base, allow_pickle=run.allow_pickle) as opened:
        return tuple(
            _measure_task(bank, opened, name, source, run, coefficient, leave, progress)
            for name, source in originals
        )


def _measure_task(
    bank: BankFile,
    base: BankBase | None,
    name: str,
    source: str,
    run: RunOptions,
    coefficient: float | None,
    opening: OpenOptions,
    progress: Progress,
) -> TaskCheck:
    retrieval = Retrieval(bank, base, bank.task(name), coefficient=coefficient, run=run)
    found: dict[str, dict[int, Overlap]] = {}
    unlike: set[str] = set()
    with ExitStack() as stack:
        leave = opening.recorded(bank.task(name).pickle)
        original = reopen(stack, name, source, bank_source(bank, base), leave).source
        if original.tensors != retrieval.tensors:
            raise MismatchError(f"{source}: has other tensors than task {name}")

        def work(kernel: Kernel, piece: Piece) -> int:
            tensor = piece.tensor.name
            if piece.own or not retrieval.superposed(tensor):
                if not _same_bytes(retrieval, original, kernel, piece):
                    unlike.add(tensor)
            else:
                pair = retrieved_and_true(retrieval, base, original, kernel, piece)
                found.setdefault(tensor, {})[piece.chunk] = Overlap.of(*pair)
            return piece.nbytes

        retrieval.workers.run(
            [piece for tensor in retrieval.tensors for piece in retrieval.pieces(tensor)],
            work,
            phase=f"measuring {name}",
            total=sum(tensor.nbytes for tensor in retrieval.tensors.values()),
            progress=progress,
        )
    _refuse_unlike(retrieval, unlike)
    return _task_check(bank, retrieval, found)


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
            f"task {retrieval.task.name}: exact tensor {first!a} differs from the checkpoint; "
            "is it the one that was packed?"
        )


def _task_check(
    bank: BankFile, retrieval: Retrieval, found: Mapping[str, Mapping[int, Overlap]]
) -> TaskCheck:
    statistics, tensors = stored_statistics(bank), bank.manifest.base.tensors.values()
    column = statistics.indices.index(retrieval.task.index)
    rows = {name: row for row, name in enumerate(norm_rows(tensors))}
    prediction = predict_bank(bank.manifest, statistics)

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
