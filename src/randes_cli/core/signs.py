"""Sign patterns: the diagonal part of a transform (paper 4.4, equations 9 to 11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, I64, Raw, address
from randes_cli.core.compiled.library import library
from randes_cli.specs import Signs

#: Columns below which a pattern is written out: NumPy walks an overlapping view row by row.
_NARROW = 48


def sign_bytes(signs: Signs, rows: int, cols: int) -> int:
    """Bytes of the packed bits of `sign_bits`."""
    if signs is Signs.none or rows * cols == 0:
        return 0
    counts = {
        Signs.column: cols,
        Signs.hankel: rows + cols - 1,
        Signs.two_sided: rows + cols,
    }
    return -(-counts[signs] // 8)


def sign_bits(signs: Signs, seed: int, tensor: str, rows: int, cols: int) -> bytes:
    """The packed bits v that decide the signs of one rows × cols tensor, 1 meaning −1.

    ``column``: cols bits, element (i, j) flips by v[j] (paper 4.4).
    ``hankel``: rows + cols − 1 bits, element (i, j) flips by v[i + j].
    ``two-sided``: rows + cols bits, element (i, j) flips by v[i] and by v[rows + j].
    """
    count = sign_bytes(signs, rows, cols)
    return random_bytes("signs", seed, tensor, count) if count else b""


def sign_vector(bits: bytes, start: int, count: int) -> F32:
    """±1 for `count` bits from bit `start` on; 1 means −1."""
    packed = np.frombuffer(bits, np.uint8)[start // 8 : (start + count + 7) // 8]
    made: F32 = _eights()[packed].reshape(-1)[start % 8 : start % 8 + count]
    return made


@cache
def _eights() -> F32:
    """The signs of the eight bits of every byte."""
    every = np.arange(256, dtype=np.uint8)[:, None]
    flips = np.unpackbits(every, axis=1, bitorder="little")
    made: F32 = np.where(flips, np.float32(-1), np.float32(1))
    return made


def many_signs(signs: Signs, bits: Raw, shape: tuple[int, int], view: tuple[int, int]) -> F32:
    """±1 of whole tensors of one shape, a tensor a row; `bits` has those of each in a row.

    `view` is the matrix that two-sided signs see, `shape` the one that the others do.
    """
    if signs is Signs.none:
        return np.ones((len(bits), 1), np.float32)
    flips = np.unpackbits(bits, axis=1, bitorder="little")
    rows, cols = view if signs is Signs.two_sided else shape
    row, col = np.divmod(np.arange(rows * cols), cols)
    if signs is Signs.two_sided:
        found = flips[:, row] ^ flips[:, rows + col]
    else:
        found = flips[:, col + row if signs is Signs.hankel else col]
    made: F32 = np.float32(1) - np.float32(2) * found
    return made


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
        vector: F32 = sign_vector(self.bits, start, count) * np.float32(scale)
        if width >= _NARROW or height == 1:
            steps = (4 if hankel else 0, 4)
            view: F32 = np.ndarray((height, width), np.float32, vector, 0, steps)
            return view
        whole = np.empty((height, width), np.float32)
        for column in range(width):
            whole[:, column] = vector[column : column + height] if hankel else vector[column]
        return whole

    def multiply(self, values: F32) -> None:
        """Multiply the block's elements, in order, by their signs."""
        block = values.reshape(self.shape)
        np.multiply(block, self.values(), out=block)


class SignPart(NamedTuple):
    """A block of a run: its elements from `start` on are the outer product of two vectors."""

    start: int
    factors: tuple[F32, F32]


class SignRun(NamedTuple):
    """±scale for `elements` elements, from `first` on, of a tensor with two-sided signs.

    `view` is (rows, columns) of the whole tensor, `bits` its sign bits. The run may begin and
    end inside a row.
    """

    bits: bytes
    view: tuple[int, int]
    first: int
    elements: int
    scale: float

    @property
    def signs(self) -> Signs:
        """As a `SignWindow` has it."""
        return Signs.two_sided

    @property
    def shape(self) -> tuple[int, int]:
        """The run as a matrix of one row."""
        return 1, self.elements

    def parts(self) -> Iterator[SignPart]:
        """Its blocks, three at most: the end of a row, whole rows, the beginning of one."""
        (rows, cols), at = self.view, 0
        while at < self.elements:
            row, col = divmod(self.first + at, cols)
            left = self.elements - at
            width = min(cols - col, left)
            height = max(1, left // cols) if width == cols else 1
            down = sign_vector(self.bits, row, height) * np.float32(self.scale)
            yield SignPart(at, (down, sign_vector(self.bits, rows + col, width)))
            at += height * width

    def values(self) -> F32:
        """The run as float32, 1 × elements."""
        made = np.ones(self.elements, np.float32)
        self.multiply(made)
        return made.reshape(self.shape)

    def multiply(self, values: F32) -> None:
        """Multiply the run's elements, in order, by their signs."""
        for start, (down, across) in self.parts():
            block = values[start : start + len(down) * len(across)].reshape(len(down), -1)
            np.multiply(block, across, out=block)
            np.multiply(block, down[:, None], out=block)


#: What kernels take.
Window = SignWindow | SignRun


def random_bytes(kind: str, seed: int, name: str, count: int) -> bytes:
    """First `count` bytes of SHAKE-256 of ``randes/1|<kind>|<seed>|<name>`` in UTF-8.

    `kind` is ``signs`` (name: the tensor's) or ``shuffle`` (name: the layer type's).
    """
    from hashlib import shake_256  # OpenSSL is loaded where signs are

    return shake_256(f"randes/1|{kind}|{seed}|{name}".encode()).digest(count)


def random_joined(kind: str, seed: int, names: Sequence[str], counts: I64) -> Raw:
    """`random_bytes` of many names, of each so many, one after the other."""
    start = f"randes/1|{kind}|{seed}|"
    compiled = library()
    if compiled is None:
        pairs = zip(names, counts.tolist(), strict=True)
        each = (random_bytes(kind, seed, name, count) for name, count in pairs if count)
        return np.frombuffer(b"".join(each), np.uint8)
    text = start + start.join(names) if names else ""
    if text.isascii():
        lengths = np.fromiter(map(len, names), np.int64, len(names)) + len(start)
    else:
        lengths = np.array([len((start + name).encode()) for name in names], np.int64)
    made, sizes = np.empty(int(counts.sum()), np.uint8), np.ascontiguousarray(counts, np.int64)
    places = address(lengths), address(sizes), len(names), address(made)
    compiled.randes_streams(text.encode(), *places)
    return made
