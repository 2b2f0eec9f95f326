"""`load_into`: one task into the parameters of a module that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.kernel import Kernel
from randes_cli.errors import MismatchError, MissingError, some_of
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import DTYPES, FLOAT_DTYPES, ITEM_SIZE, TensorInfo
from randes_cli.workers import no_progress, run_parallel

if TYPE_CHECKING:
    import torch


def torch_dtypes() -> Mapping[str, torch.dtype]:
    """torch's dtype for every safetensors dtype that a bank holds."""
    import torch

    return {name: getattr(torch, dtype.torch) for name, dtype in DTYPES.items()}


def as_torch(data: Raw, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of stored bytes, whose memory it takes."""
    import torch

    kind = torch_dtypes()[dtype]
    if not data.size:
        return torch.empty(shape, dtype=kind)
    return torch.from_numpy(data).view(kind).reshape(shape)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What `load_into` wrote; `missing` and `unexpected` are empty unless `strict=False`.

    Attributes:
        tensors: number of tensors written; tied ones count once.
        bytes: their size in the module.
        missing: parameters and buffers of the module that the task lacks: left as they were.
        unexpected: tensors of the task that the module lacks.
        turned: those that are positive throughout in the base and came back with negative values.
    """

    tensors: int
    bytes: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    turned: tuple[str, ...] = ()


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
    kernels: list[Kernel],
) -> LoadReport:
    """Write a task into a module. See `Bank.load_into`; `kernels` are kept for the next call."""
    _refuse_attached(module)
    state = {n: t for n, t in module.state_dict().items() if hasattr(t, "data_ptr")}
    present, missing, unexpected = _names(state, retrieval, strict=strict)
    slots = [_slot(retrieval.tensors[name], state[target]) for target, name in present]
    taken: list[Kernel] = []

    def worker() -> Kernel:
        try:
            kernel = kernels.pop()
        except IndexError:
            kernel = retrieval.workers.kernel()
        taken.append(kernel)
        return kernel

    def work(kernel: Kernel, job: tuple[_Slot, Sequence[Piece]]) -> int:
        return _fill(retrieval, kernel, *job)

    try:
        run_parallel(
            [job for slot in slots for job in _jobs(retrieval, slot)],
            worker,
            work,
            threads=retrieval.workers.threads,
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
    return LoadReport(len(slots), size, missing, unexpected, retrieval.turned.names)


def _names(
    state: Mapping[str, torch.Tensor], retrieval: Retrieval, *, strict: bool
) -> tuple[list[tuple[str, str]], tuple[str, ...], tuple[str, ...]]:
    """Which names to write, the module's and the bank's, those missing, and those unexpected.

    Of tied ones (the same memory) the first that the task has.
    """
    stored = {retrieval.output_name(name): name for name in retrieval.tensors}
    tied: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        tied.setdefault(_place(tensor) or name, []).append(name)
    present, missing, apart = list[tuple[str, str]](), list[str](), list[str]()
    for names in tied.values():
        found = {retrieval.kept_name(stored[n]): n for n in reversed(names) if n in stored}
        first, *others = reversed(found.values()) if found else [""]
        if not found:
            missing += names
        else:
            present.append((first, stored[first]))
            apart += others
    unexpected = tuple(name for name in stored if name not in state)
    task, bank = retrieval.task.name, retrieval.bank.path
    if strict and apart:
        raise MismatchError(
            f"{bank}: task {task} has {_some(apart)} apart from what the module ties it to: build "
            "the module untied (strict=False passes over it)"
        )
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
    return present, tuple(missing), (*unexpected, *apart)


def _place(tensor: torch.Tensor) -> tuple[object, ...] | None:
    """Which memory a tensor is; None where it is not one run of memory, or none."""
    import torch

    if tensor.layout != torch.strided or not tensor.numel() or tensor.is_meta:
        return None
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()


def _some(names: Sequence[str]) -> str:
    return some_of([*map(ascii, names)], 3)


def _refuse_attached(module: torch.nn.Module) -> None:
    """Refuse a module that answers for many tasks, by values that are made of the base's."""
    for tensor in (*module.parameters(), *module.buffers()):
        if hasattr(tensor, "refuse_writing"):
            tensor.refuse_writing()


def _refuse_unwritable(name: str, target: torch.Tensor) -> None:
    """Refuse a tensor that has no memory of its own for every value."""
    import torch

    if target.layout != torch.strided:
        raise MismatchError(
            f"the module's {name!r} is {target.layout}: only dense ones are written"
        )
    if target.is_meta:
        raise MismatchError(f"the module's {name!r} is on the meta device: it has no memory")
    reach = 0  # in memory, of the dimensions so far
    for stride, size in sorted(zip(target.stride(), target.shape, strict=True)):
        if size > 1 and stride <= reach:
            raise MismatchError(
                f"the module's {name!r} is expanded: several of its values share memory; "
                "make it .contiguous()"
            )
        reach += stride * (size - 1)


def _slot(tensor: TensorInfo, target: torch.Tensor) -> _Slot:
    if tuple(target.shape) != tensor.shape:
        raise MismatchError(
            f"tensor {tensor.name!r} is {list(tensor.shape)}, the module's is {list(target.shape)}"
        )
    _refuse_unwritable(tensor.name, target)
    stored = {kind: name for name, kind in torch_dtypes().items()}.get(target.dtype)
    wanted = tensor.dtype
    if stored in FLOAT_DTYPES and wanted in FLOAT_DTYPES:
        wanted = str(stored)
    elif stored != wanted:  # a whole number or a truth in another dtype is another value
        raise MismatchError(
            f"tensor {tensor.name!r} is {tensor.dtype}, the module's is {target.dtype}"
        )
    memory = None
    if target.device.type == "cpu" and target.is_contiguous():
        import torch

        memory = target.reshape(-1).view(torch.uint8).numpy()
    return _Slot(tensor._replace(dtype=wanted), memory, target)


def _jobs(retrieval: Retrieval, slot: _Slot) -> list[tuple[_Slot, Sequence[Piece]]]:
    """Pieces to do at once: one, or all of a tensor that does not lie in one run of memory."""
    pieces = [replace(p, tensor=slot.info) for p in retrieval.pieces(slot.info.name)]
    if slot.tensor.is_contiguous():
        return [(slot, [piece]) for piece in pieces]
    return [(slot, pieces)]


def _fill(retrieval: Retrieval, kernel: Kernel, slot: _Slot, pieces: Sequence[Piece]) -> int:
    first, count = pieces[0].start, sum(piece.nbytes for piece in pieces)
    own = slot.memory
    memory = np.empty(count, np.uint8) if own is None else own[first : first + count]
    for piece in pieces:
        retrieval.fill(kernel, piece, memory[piece.start - first :][: piece.nbytes])
    if own is None:
        _copy(slot, memory, first // ITEM_SIZE[slot.info.dtype])
    return count


def _copy(slot: _Slot, memory: Raw, first: int) -> None:
    """Send retrieved values to where the module keeps them, and in its dtype."""
    import torch

    made = torch.from_numpy(memory).view(torch_dtypes()[slot.info.dtype])
    if slot.tensor.is_contiguous():
        slot.tensor.view(-1)[first : first + len(made)].copy_(made)
    else:
        slot.tensor.copy_(made.reshape(slot.tensor.shape))
