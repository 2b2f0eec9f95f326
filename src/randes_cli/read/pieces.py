"""What a retrieval is made of: pieces of output tensors, and the stored chunks behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.plan import Rect
from randes_cli.specs import ITEM_SIZE, TensorInfo

#: Fills an array with a tensor's bytes from a byte of its data.
Read: TypeAlias = Callable[[str, int, Raw], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of one output tensor; `own`: of the exact tensor, put after `skip` rows."""

    tensor: TensorInfo
    chunk: int
    rect: Rect
    own: bool = False
    skip: int = 0

    @property
    def start(self) -> int:
        """Offset of its first byte in the output tensor."""
        first = self.skip * self.rect.width + self.rect.start
        return first * ITEM_SIZE[self.tensor.dtype]

    @property
    def nbytes(self) -> int:
        return self.rect.elements * ITEM_SIZE[self.tensor.dtype]


class StoredChunk:
    """One chunk of a stored tensor, digested by `running` as it is read, where that is given."""

    def __init__(self, read: Read, name: str, dtype: str, running: Any | None) -> None:
        self._read, self._name, self.dtype = read, name, dtype
        self._running = running

    @property
    def unchecked(self) -> bool:
        """Whether it is not yet known to be sound."""
        return self._running is not None

    def read(self, rect: Rect, out: Raw) -> None:
        """Fill `out` with a strip of it."""
        self._read(self._name, rect.start * ITEM_SIZE[self.dtype], out)
        if self._running:
            self._running.update(out)

    def digest(self, whole: Rect, done: Rect) -> bytes | None:
        """Its digest, once `done` was read; None where it is known to be sound.

        Reads what follows where a task's rows end inside.
        """
        if self._running is None:
            return None
        left = whole.elements - done.elements
        if left:
            raw = np.empty(left * ITEM_SIZE[self.dtype], np.uint8)
            self._read(self._name, (done.start + done.elements) * ITEM_SIZE[self.dtype], raw)
            self._running.update(raw)
        found: bytes = self._running.digest()
        return found
