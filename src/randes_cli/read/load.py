"""`load_into`: one task into the parameters of a module that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.kernel import Kernel
from randes_cli.core.kernels import make_kernel
from randes_cli.errors import MismatchError, MissingError
from randes_cli.plan import strip_elements
from randes_cli.read.retrieve import Piece, Retrieval
from randes_cli.specs import DTYPES, FLOAT_DTYPES, ITEM_SIZE, RunOptions, TensorInfo
from randes_cli.workers import no_progress, run_parallel, thread_count

if TYPE_CHECKING:
    import torch


def torch_dtypes() -> Mapping[str, torch.dtype]:
    """torch's dtype for every safetensors dtype that a bank holds."""
    import torch

    return {name: getattr(torch, dtype.torch) for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What `load_into` wrote; `missing` and `unexpected` are empty unless `strict=False`.

    Attributes:
        tensors: number of tensors written; tied ones count once.
        bytes: their size in the module.
        missing: parameters and buffers of the module that the task lacks: left as they were.
        unexpected: tensors of the task that the module lacks.
    """

    tensors: int
    bytes: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    """One tensor of the module.

    Attributes:
        info: the task's tensor, in the dtype to retrieve it in.
        memory: the module's own bytes, where they can be written in place.
        tensor: the module's tensor, detached.
    """

    info: TensorInfo
    memory: Raw | None
    tensor: torch.Tensor


def load_into(
    retrieval: Retrieval,
    module: torch.nn.Module,
    *,
    strict: bool,
    run: RunOptions,
    kernels: list[Kernel],
) -> LoadReport:
    """Write a task into a module. See `Bank.load_into`; `kernels` are kept for the next call."""
    state = {n: t for n, t in module.state_dict().items() if hasattr(t, "data_ptr")}
    named = _names(state, retrieval, strict=strict)
    slots = [_slot(retrieval.tensors[name], state[target]) for target, name in named.present]
    strip = strip_elements(
        1,
        max_memory=run.max_memory,
        threads=thread_count(run.threads),
        chosen=run.strip_elements,
    )
    taken: list[Kernel] = []

    def worker() -> Kernel:
        try:
            kernel = kernels.pop()
        except IndexError:
            kernel = make_kernel(run.device, elements=strip, layers=1)
        taken.append(kernel)
        return kernel

    def work(kernel: Kernel, job: tuple[_Slot, Sequence[Piece]]) -> int:
        return _fill(retrieval, kernel, strip, *job)

    try:
        run_parallel(
            [job for slot in slots for job in _jobs(retrieval, slot)],
            worker,
            work,
            threads=thread_count(run.threads),
            phase=f"loading {retrieval.task.name}",
            total=0,
            progress=no_progress,
        )
    finally:
        kernels.extend(taken)
    if retrieval.saturated:
        raise MismatchError(
            f"task {retrieval.task.name}: {retrieval.saturated} values are beyond the range of "
            "the module's dtype and became its largest; use a wider dtype"
        )
    size = sum(slot.info.nbytes for slot in slots)
    return LoadReport(len(slots), size, named.missing, named.unexpected)


@dataclass(frozen=True, slots=True)
class _Names:
    present: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def _names(state: Mapping[str, torch.Tensor], retrieval: Retrieval, *, strict: bool) -> _Names:
    """Which names to write: of tied ones (the same memory) the first that the task has.

    `present` pairs the module's name with the bank's.
    """
    stored = {retrieval.output_name(name): name for name in retrieval.tensors}
    tied: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        tied.setdefault(place if tensor.numel() else name, []).append(name)
    present, missing = [], []
    for names in tied.values():
        found = next((name for name in names if name in stored), None)
        if found is None:
            missing += names
        else:
            present.append((found, stored[found]))
    unexpected = tuple(name for name in stored if name not in state)
    task, bank = retrieval.task.name, retrieval.bank.path
    if strict and missing:
        raise MissingError(
            f"{bank}: task {task} has no tensor for the module's {_some(missing)} "
            "(strict=False leaves them as they are)"
        )
    if strict and unexpected:
        raise MismatchError(
            f"{bank}: the module has no parameter for {_some(unexpected)} of task {task} "
            "(strict=False passes over them)"
        )
    return _Names(tuple(present), tuple(missing), unexpected)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(ascii, names[:3])) + more


def _slot(tensor: TensorInfo, target: torch.Tensor) -> _Slot:
    if tuple(target.shape) != tensor.shape:
        raise MismatchError(
            f"tensor {tensor.name!a} is {list(tensor.shape)}, the module's is {list(target.shape)}"
        )
    if target.is_meta:
        raise MismatchError(f"the module's {tensor.name!a} is on the meta device: it has no memory")
    stored = {kind: name for name, kind in torch_dtypes().items()}.get(target.dtype)
    wanted = tensor.dtype
    if stored in FLOAT_DTYPES and wanted in FLOAT_DTYPES:
        wanted = str(stored)
    elif stored in FLOAT_DTYPES or wanted in FLOAT_DTYPES:
        raise MismatchError(
            f"tensor {tensor.name!a} is {tensor.dtype}, the module's is {target.dtype}"
        )
    memory = None
    if wanted == stored and target.device.type == "cpu" and target.is_contiguous():
        import torch

        memory = target.reshape(-1).view(torch.uint8).numpy()
    return _Slot(tensor._replace(dtype=wanted), memory, target)


def _jobs(retrieval: Retrieval, slot: _Slot) -> list[tuple[_Slot, Sequence[Piece]]]:
    """Pieces to do at once: one, or all of a tensor that does not lie in one run of memory."""
    pieces = [replace(p, tensor=slot.info) for p in retrieval.pieces(slot.info.name)]
    if slot.tensor.is_contiguous():
        return [(slot, [piece]) for piece in pieces]
    return [(slot, pieces)]


def _fill(
    retrieval: Retrieval, kernel: Kernel, strip: int, slot: _Slot, pieces: Sequence[Piece]
) -> int:
    size = ITEM_SIZE[slot.info.dtype]
    first = _start(pieces[0])
    count = sum(piece.rect.elements for piece in pieces)
    memory = slot.memory
    if memory is None:
        memory = np.empty(count * size, np.uint8)
    else:
        memory = memory[first * size : (first + count) * size]
    for piece in pieces:
        place = (_start(piece) - first) * size
        out = memory[place : place + piece.rect.elements * size]
        retrieval.fill(kernel, piece, strip, out)
    if slot.memory is None:
        _copy(slot, memory, first, count)
    return count * size


def _start(piece: Piece) -> int:
    """The first element of a piece in its tensor."""
    return piece.skip * piece.rect.width + piece.rect.start


def _copy(slot: _Slot, memory: Raw, first: int, count: int) -> None:
    """Send retrieved values to where the module keeps them, and in its dtype."""
    import torch

    made = torch.from_numpy(memory).view(torch_dtypes()[slot.info.dtype])
    if slot.tensor.is_contiguous():
        slot.tensor.view(-1)[first : first + count].copy_(made)
    else:
        slot.tensor.copy_(made.reshape(slot.tensor.shape))
