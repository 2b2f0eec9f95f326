"""Sign patterns: the diagonal part of a transform (paper 4.4, equations 9 to 11)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.streams import random_bytes
from randes_cli.specs import Signs

F32 = NDArray[np.float32]

#: Columns below which a pattern is written out: NumPy walks an overlapping view row by row.
_NARROW = 48


def sign_bits(signs: Signs, seed: int, tensor: str, rows: int, cols: int) -> bytes:
    """The packed bits v that decide the signs of one rows × cols tensor, 1 meaning −1.

    ``column``: cols bits, element (i, j) flips by v[j] (paper 4.4).
    ``hankel``: rows + cols − 1 bits, element (i, j) flips by v[i + j].
    """
    if signs is Signs.none or rows * cols == 0:
        return b""
    count = cols if signs is Signs.column else rows + cols - 1
    return random_bytes("signs", seed, tensor, -(-count // 8))


class SignWindow(NamedTuple):
    """±scale for the block rows[0]:rows[1], cols[0]:cols[1] of a tensor whose sign bits are `bits`.

    Kernels that cannot take bits ask for `values`.
    """

    signs: Signs
    bits: bytes
    rows: tuple[int, int]
    cols: tuple[int, int]
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    @property
    def first(self) -> int:
        """The bit that decides about the block's first element."""
        return self.cols[0] + (self.rows[0] if self.signs is Signs.hankel else 0)

    def values(self) -> F32:
        """The block as float32.

        Mostly a view that overlaps itself (one short vector under it): never write to it.
        """
        (height, width), scale = self.shape, self.scale
        if self.signs is Signs.none:
            return np.broadcast_to(np.float32(scale), (height, width))
        hankel, start = self.signs is Signs.hankel, self.first
        count = width + (height - 1 if hankel else 0)
        packed = np.frombuffer(self.bits, np.uint8)[start // 8 : (start + count + 7) // 8]
        flips = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + count]
        vector = np.where(flips, np.float32(-scale), np.float32(scale))
        if width >= _NARROW or height == 1:
            return np.ndarray((height, width), np.float32, vector, 0, (4 if hankel else 0, 4))
        whole = np.empty((height, width), np.float32)
        for column in range(width):
            whole[:, column] = vector[column : column + height] if hankel else vector[column]
        return whole
