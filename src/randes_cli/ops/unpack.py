"""`unpack`: tasks out of a bank as ordinary safetensors checkpoints, written as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.kernel import Kernel
from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.atomic import check_space
from randes_cli.files.bank import BankFile
from randes_cli.files.checkpoint import SUFFIXES
from randes_cli.files.writer import checkpoint_writer
from randes_cli.ops.kernels import make_kernel
from randes_cli.ops.parallel import Progress, no_progress, run_parallel, thread_count
from randes_cli.ops.retrieve import (
    BankBase,
    Piece,
    Retrieval,
    find_task,
    open_base,
    output_metadata,
)
from randes_cli.plan import strip_elements
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo

Raw = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class UnpackReport:
    """One task that was written (or with a dry run would be). Sizes are bytes."""

    task: str
    path: str
    dry_run: bool
    bytes: int
    tensors: int
    superposed: int
    coefficient: float
    saturated: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnpackOptions:
    """How tasks come out.

    Attributes:
        coefficient: λ in place of the task's own (None: the task's).
        dtype: dtype of all floating-point tensors (None: the task's).
        shard_bytes: most bytes of one output file (None: one file).
        saturate: let values beyond the dtype's range become its largest, and count them.
        force: replace what is there, and write damaged tasks all the same.
    """

    coefficient: float | None = None
    dtype: str | None = None
    shard_bytes: int | None = None
    saturate: bool = False
    force: bool = False


def unpack_task(
    bank: BankFile,
    base: BankBase | None,
    name: str,
    path: Path,
    options: UnpackOptions,
    run: RunOptions,
    *,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> UnpackReport:
    """Write one task to the file `path` (or shards named after it). See `checkpoint_writer`."""
    retrieval = Retrieval(
        bank,
        base,
        find_task(bank, name),
        coefficient=options.coefficient,
        dtype=options.dtype,
        force=options.force,
    )
    tensors = list(retrieval.tensors.values())
    total = sum(tensor.nbytes for tensor in tensors)
    if not dry_run:
        check_space(path.parent, total)
        _write(retrieval, tensors, path, options, run, progress)
    return UnpackReport(
        task=name,
        path=str(path),
        dry_run=dry_run,
        bytes=total,
        tensors=len(tensors),
        superposed=sum(map(retrieval.superposed, retrieval.tensors)),
        coefficient=retrieval.coefficient,
        saturated=retrieval.saturated,
        damaged=tuple(sorted(retrieval.damaged)),
    )


def _write(
    retrieval: Retrieval,
    tensors: Sequence[TensorInfo],
    path: Path,
    options: UnpackOptions,
    run: RunOptions,
    progress: Progress,
) -> None:
    threads = thread_count(run.threads)
    strip = strip_elements(1, max_memory=run.max_memory, threads=threads, chosen=run.strip_elements)
    metadata = output_metadata(retrieval.task)
    with checkpoint_writer(
        path, tensors, metadata, shard_bytes=options.shard_bytes, force=options.force
    ) as writer:
        pieces = [piece for name in retrieval.tensors for piece in retrieval.pieces(name)]
        room = max((p.rect.elements * ITEM_SIZE[p.tensor.dtype] for p in pieces), default=0)

        def worker() -> tuple[Kernel, Raw]:
            return make_kernel(run.device, elements=strip, layers=1), np.empty(room, np.uint8)

        def work(state: tuple[Kernel, Raw], piece: Piece) -> int:
            kernel, buffer = state
            size = ITEM_SIZE[piece.tensor.dtype]
            out = buffer[: piece.rect.elements * size]
            retrieval.fill(kernel, piece, strip, out)
            start = (piece.skip * piece.rect.width + piece.rect.start) * size
            writer.write(piece.tensor.name, start, out)
            return len(out)

        run_parallel(
            pieces,
            worker,
            work,
            threads=threads,
            phase=f"unpacking {retrieval.task.name}",
            total=sum(tensor.nbytes for tensor in tensors),
            progress=progress,
        )
        if retrieval.saturated and not options.saturate:
            raise MismatchError(
                f"task {retrieval.task.name}: {retrieval.saturated} values are beyond the range "
                "of the output's dtype; choose a wider --dtype or say --saturate"
            )


def unpack(
    bank: Path,
    names: Sequence[str] | None,
    out: Path | None,
    options: UnpackOptions,
    run: RunOptions,
    *,
    base: str | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> list[UnpackReport]:
    """Write tasks (None: all) of a bank.

    `out` with the suffix .safetensors or .st is the file of a single task; any other is a
    folder, made if missing, in which each task is ``<name>.safetensors``. None: this folder.
    Raises MissingError, BankDamaged, UsageError, NoSpace.
    """
    with BankFile(bank) as file:
        chosen = [task.name for task in file.manifest.tasks] if names is None else list(names)
        single = out is not None and out.suffix in SUFFIXES
        if single and len(chosen) != 1:
            raise UsageError(f"{out}: one file cannot hold {len(chosen)} tasks; name a folder")
        folder = out or Path()
        if not single and not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
        opened = open_base(file, base)
        try:
            return [
                unpack_task(
                    file,
                    opened,
                    name,
                    out if single and out else folder / f"{name}.safetensors",
                    options,
                    run,
                    dry_run=dry_run,
                    progress=progress,
                )
                for name in chosen
            ]
        finally:
            if opened is not None:
                opened.close()
