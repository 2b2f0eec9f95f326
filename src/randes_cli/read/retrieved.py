"""A task of a bank as a source of tensors, read by its retrieval."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from randes_cli.core.arrays import Raw
from randes_cli.core.kernels import make_kernel
from randes_cli.errors import UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.base import BankBase
from randes_cli.plan import STRIP_ELEMENTS
from randes_cli.read.retrieve import Piece, Retrieval
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo


class RetrievedTask:
    """What `unpack` would write of a task; reads are of whole pieces (see `Retrieval.pieces`)."""

    def __init__(self, bank: BankFile, base: BankBase | None, name: str, run: RunOptions) -> None:
        self._retrieval = Retrieval(bank, base, bank.task(name))
        self._device = run.device
        self._state = threading.local()
        self.source = f"{bank.path}: {name}"
        self.tensors: Mapping[str, TensorInfo] = self._retrieval.tensors
        self.metadata: Mapping[str, str] = {}

    def _piece(self, name: str, start: int) -> Piece:
        size = ITEM_SIZE[self.tensors[name].dtype]
        for piece in self._retrieval.pieces(name):
            if (piece.skip * piece.rect.width + piece.rect.start) * size == start:
                return piece
        raise UsageError(f"{self.source}: tensor {name!a} is read in whole pieces")

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the piece that begins at byte `start` of the tensor's data."""
        if not hasattr(self._state, "kernel"):
            self._state.kernel = make_kernel(self._device, elements=STRIP_ELEMENTS, layers=1)
        self._retrieval.fill(self._state.kernel, self._piece(name, start), STRIP_ELEMENTS, out)

    def comparable(self, name: str, other: TensorInfo | None) -> bool:
        """Whether a tensor is superposed or the base's, with the shape of the other side's."""
        same = other is not None and other.shape == self.tensors[name].shape
        return same and not any(piece.own for piece in self._retrieval.pieces(name))
