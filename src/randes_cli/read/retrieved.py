"""A task of a bank as a source of tensors, read by its retrieval."""

from __future__ import annotations

from collections.abc import Mapping

from randes_cli.core.arrays import Raw
from randes_cli.errors import UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.base import BankBase
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import RunOptions, TensorInfo


class RetrievedTask:
    """What `unpack` would write of a task; reads are of whole pieces (see `Retrieval.pieces`)."""

    def __init__(self, bank: BankFile, base: BankBase | None, name: str, run: RunOptions) -> None:
        self._retrieval = Retrieval(bank, base, bank.task(name), run=run)
        self.source = f"{bank.path}: {name}"
        self.tensors: Mapping[str, TensorInfo] = self._retrieval.tensors
        self.metadata: Mapping[str, str] = {}
        self._pieces: dict[str, dict[int, Piece]] = {}

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the piece that begins at byte `start` of the tensor's data."""
        if name not in self._pieces:
            self._pieces[name] = {piece.start: piece for piece in self._retrieval.pieces(name)}
        piece = self._pieces[name].get(start)
        if piece is None or len(out) != piece.nbytes:
            raise UsageError(f"{self.source}: tensor {name!r} is read in whole pieces")
        self._retrieval.fill(self._retrieval.workers.own_kernel(), piece, out)

    def comparable(self, name: str, other: TensorInfo | None) -> bool:
        """Whether a tensor is superposed or the base's, with the shape of the other side's."""
        same = other is not None and other.shape == self.tensors[name].shape
        return same and not any(piece.own for piece in self._retrieval.pieces(name))
