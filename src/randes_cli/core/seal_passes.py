"""The two passes of `seal` over a piece of a superposition: compiled where that is, else NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.agreement import Agreement, part_of
from randes_cli.core.arrays import F16, F32, I64, Raw
from randes_cli.core.codes import (
    blocks,
    decode,
    encode,
    inverse_scales,
    multiply_scales,
    pack_codes,
)
from randes_cli.core.compiled import cut as fused_cut
from randes_cli.core.levels import levels
from randes_cli.core.share import Share

Units: TypeAlias = NDArray[np.int16] | NDArray[np.int8]

#: Elements that NumPy takes at once; a multiple of eight, so that codes end on a byte.
_AT_ONCE = 2**16


@dataclass(frozen=True, slots=True)
class Scales:
    """Of one superposition: what it is multiplied by to be cut, and its codes to be read.

    Of columns there is a table, as `multiply_scales` wants it; 2^`part` is what values count in.
    """

    inverse: tuple[F32, F32]
    read: tuple[F32, F32]
    part: int

    @classmethod
    def of(cls, fitted: tuple[F16, F16], share: Share, bits: int) -> Scales:
        """From what `fit_scales` found of rows and of columns."""
        rows, columns = inverse_scales(*fitted, bits)
        along, across = (scale.astype(np.float32) for scale in fitted)
        return cls(
            (rows, share.table(columns)),
            (along, share.table(across)),
            part_of(along, across, bits),
        )


def add_squares(units: Units, start: int, along: I64, table: I64) -> None:
    """Add squares of elements `start` and on to the sums of their rows and columns.

    `along` begins with the first of these rows; `table` has the sums of columns as
    `multiply_scales` has their scales.
    """
    if fused_cut.add_squares(units, start, along, table):
        return
    first = start // table.shape[1]
    for at in range(0, len(units), _AT_ONCE):
        squares = units[at : at + _AT_ONCE].astype(np.int64)
        np.multiply(squares, squares, out=squares)
        _add_squares(squares, start + at, first, along, table)


def _add_squares(squares: I64, start: int, first: int, along: I64, table: I64) -> None:
    every, cols = table.shape
    for row, col, block in blocks(squares, start, cols):
        along[row - first : row - first + len(block)] += block.sum(axis=1)
        for down in range(min(every, len(block))):
            sums = block[down::every].sum(axis=0)
            table[(row + down) % every, col : col + len(sums)] += sums


def cut(units: Units, start: int, bits: int, scales: Scales, out: Raw) -> Agreement:
    """Write codes of elements `start` and on, packed; how what they are read as agrees with these.

    Of a multiple of eight elements, or of the last.
    """
    found = fused_cut.cut(units, start, bits, scales.inverse, scales.read, scales.part, out)
    if found is not None:
        return found
    near = Agreement()
    for at in range(0, len(units), _AT_ONCE):
        part = units[at : at + _AT_ONCE]
        values = part.astype(np.float32)
        multiply_scales(values, start + at, *scales.inverse)
        codes = encode(values, bits)
        read = levels(bits)[codes]
        multiply_scales(read, start + at, *scales.read)
        near = near.plus(part.astype(np.int64), read, scales.part)
        packed = pack_codes(codes, bits)
        out[at // 8 * bits : at // 8 * bits + len(packed)] = packed
    return near


def read(packed: Raw, bits: int, start: int, scales: tuple[F32, F32], out: F32) -> None:
    """Write what codes are read as, in steps: elements `start`, the first of a byte, and on.

    `scales` are those of rows, and a table of those of columns.
    """
    if fused_cut.read(packed, bits, start, scales, out):
        return
    whole = np.empty(8 * (len(packed) // bits), np.float32)
    decode(packed, bits, whole)
    out[:] = whole[: len(out)]
    multiply_scales(out, start, *scales)
