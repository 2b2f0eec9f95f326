"""The Python side of the product: `pack` and `Bank`, the same verbs as the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from randes_cli.files.bank import BankFile
from randes_cli.files.manifest import TaskRecord
from randes_cli.ops.kernels import make_kernel
from randes_cli.ops.pack import pack
from randes_cli.ops.retrieve import BankBase, Retrieval, find_task, open_base
from randes_cli.plan import strip_elements
from randes_cli.specs import ITEM_SIZE, RunOptions

if TYPE_CHECKING:
    import torch

__all__ = ["Bank", "pack"]


class Bank:
    """An open bank. Use it in a ``with`` block, or call `close`.

    Every method raises MissingError for a task that is not there and BankDamaged for bytes
    that are not those written.
    """

    def __init__(self, file: BankFile, base: BankBase | None, run: RunOptions) -> None:
        self._file, self._base, self._run = file, base, run

    @classmethod
    def open(
        cls, path: str | Path, *, base: str | None = None, run: RunOptions | None = None
    ) -> Bank:
        """Open a bank; `base` is the base's checkpoint where it lies outside and has moved."""
        file = BankFile(Path(path))
        try:
            return cls(file, open_base(file, base), run or RunOptions())
        except BaseException:
            file.close()
            raise

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of their indices."""
        return tuple(task.name for task in self._file.manifest.tasks)

    def task(self, name: str) -> TaskRecord:
        """What the manifest records of a task."""
        return find_task(self._file, name)

    def iter_tensors(
        self, task: str, *, coefficient: float | None = None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, tensor) of the retrieved task, one at a time, in its own dtypes.

        `coefficient` is λ; None takes the task's own (1.0 unless tuned).
        """
        record = find_task(self._file, task)
        retrieval = Retrieval(self._file, self._base, record, coefficient=coefficient)
        strip = strip_elements(
            1, max_memory=self._run.max_memory, threads=1, chosen=self._run.strip_elements
        )
        kernel = make_kernel(self._run.device, elements=strip, layers=1)
        for name, tensor in retrieval.tensors.items():
            data = np.empty(tensor.nbytes, np.uint8)
            size = ITEM_SIZE[tensor.dtype]
            for piece in retrieval.pieces(name):
                start = (piece.skip * piece.rect.width + piece.rect.start) * size
                target = data[start : start + piece.rect.elements * size]
                retrieval.fill(kernel, piece, strip, target)
            yield retrieval.output_name(name), _as_torch(data, tensor.dtype, tensor.shape)

    def retrieve(self, task: str, *, coefficient: float | None = None) -> dict[str, torch.Tensor]:
        """The retrieved task as a state dict."""
        return dict(self.iter_tensors(task, coefficient=coefficient))

    def close(self) -> None:
        """Close the bank and the base."""
        if self._base is not None:
            self._base.close()
        self._file.close()

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _as_torch(data: Any, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    names = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U64": torch.uint64,
        "U32": torch.uint32,
        "U16": torch.uint16,
        "U8": torch.uint8,
        "BOOL": torch.bool,
        "C64": torch.complex64,
    }
    if not data.size:
        return torch.empty(shape, dtype=names[dtype])
    return torch.from_numpy(data).view(names[dtype]).reshape(shape)
