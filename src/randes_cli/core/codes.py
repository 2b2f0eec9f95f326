"""Codes of a sealed superposition: packed bits to values and back, and the scales of a tensor.

Code i of a tensor fills bits i·k to i·k + k − 1 of its bytes, least significant first, whatever
k; so eight codes fill k bytes. The last eight are filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.arrays import F16, F32, I64, Array, Raw
from randes_cli.core.levels import gain, levels, thresholds
from randes_cli.core.share import Share

T = TypeVar("T", np.float32, np.int64)

_LARGEST = float(np.finfo(np.float16).max)


def packed_bytes(elements: int, bits: int) -> int:
    return -(-elements // 8) * bits


def encode(values: F32, bits: int) -> Raw:
    """Codes of scaled values: how many thresholds lie below each."""
    if bits == 8:
        return _encode_8(values)
    limits = thresholds(bits)
    codes = np.zeros(len(values), np.uint8)
    for limit in limits:
        codes += values > limit
    return codes


@lru_cache(maxsize=8)
def limits_of(bits: int) -> F32:
    """The thresholds between −∞ and ∞."""
    ends = np.array([np.inf], np.float32)
    return np.concatenate([-ends, thresholds(bits), ends])


@lru_cache(maxsize=1)
def fine() -> NDArray[np.int32]:
    """The code of 8 bits at the lower edge of each 1/128 from −12 to 12."""
    edges = (np.arange(24 * 128) / 128 - 12).astype(np.float32)
    return np.searchsorted(thresholds(8), edges).astype(np.int32)


def _encode_8(values: F32) -> Raw:
    """A table finds the code to within one, thresholds settle it (a search is 30 times slower)."""
    limits, table = limits_of(8), fine()
    place = np.clip((values + np.float32(12)) * np.float32(128), 0, len(table) - 1)
    codes = table[place.astype(np.int32)].astype(np.uint8)
    codes += values > limits[1:][codes]
    codes -= values <= limits[codes]
    return np.asarray(codes)


def pack_codes(codes: Raw, bits: int) -> Raw:
    """Codes as bytes, filled up to a multiple of eight codes."""
    whole = np.zeros(-(-len(codes) // 8) * 8, np.uint8)
    whole[: len(codes)] = codes
    if bits == 3:
        eights = whole.reshape(-1, 8).astype(np.uint32)
        words = np.zeros(len(eights), "<u4")
        for place in range(8):
            words |= eights[:, place] << np.uint32(3 * place)
        return np.ascontiguousarray(words.view(np.uint8).reshape(-1, 4)[:, :3]).reshape(-1)
    shared = whole.reshape(-1, 8 // bits)
    packed = np.zeros(len(shared), np.uint8)
    for place in range(8 // bits):
        packed |= shared[:, place] << np.uint8(bits * place)
    return packed


@lru_cache(maxsize=8)
def table_of(bits: int) -> F32:
    """One row of levels for each byte (for each twelve bits of 3-bit codes)."""
    width = 12 if bits == 3 else 8
    words = np.arange(2**width)[:, None]
    shifts = np.arange(0, width, bits)[None]
    return np.asarray(levels(bits)[(words >> shifts) & (2**bits - 1)])


def decode(packed: Raw, bits: int, out: F32) -> None:
    """Write the levels of packed codes to `out`: 8 values for every `bits` bytes."""
    table = table_of(bits)
    rows: Array = packed
    if bits == 3:
        low, middle, high = (packed[place::3].astype(np.uint16) for place in range(3))
        words = np.empty((len(low), 2), np.uint16)
        words[:, 0] = low | (middle & 15) << 8
        words[:, 1] = middle >> 4 | high << 4
        rows = words.reshape(-1)
    np.take(table, rows, axis=0, out=out.reshape(-1, table.shape[1]), mode="clip")


def fit_scales(
    row_squares: I64, column_squares: I64, bits: int, share: Share | None = None
) -> tuple[F16, F16]:
    """Row and column scales of a matrix from the exact sums of squares of its rows and columns.

    s_ij = r_i · c_j, r_i being the root mean square of row i and c_j that of column j over that
    of the whole: right where the variances have rank one, and found in a single pass over
    integers, so that threads and strips cannot matter. r_i is in steps and carries the gain.
    Of a share the means are over the elements that each row and column has in it.
    """
    cols, total = len(column_squares), float(row_squares.sum())
    if share is not None and share.every > 1:
        in_row, in_column = share.counts
        along = np.sqrt(row_squares / in_row) * gain(bits)
        mean = total / float(in_row.sum())
        across = np.sqrt(column_squares / in_column / mean) if total else np.zeros(cols)
    else:
        along = np.sqrt(row_squares / cols) * gain(bits)
        across = np.sqrt(column_squares * (cols / total)) if total else np.zeros(cols)
    return np.minimum(along, _LARGEST).astype(np.float16), across.astype(np.float16)


def blocks(values: NDArray[T], start: int, cols: int) -> Iterator[tuple[int, int, NDArray[T]]]:
    """Elements `start` and on of a matrix as blocks of it, each with its first row and column.

    Whole rows are together; a row that begins or ends outside is by itself.
    """
    place = 0
    while place < len(values):
        row, col = divmod(start + place, cols)
        height = 0 if col else (len(values) - place) // cols
        width = cols if height else min(cols - col, len(values) - place)
        block = values[place : place + max(1, height) * width].reshape(-1, width)
        yield row, col, block
        place += block.size


def multiply_scales(values: F32, start: int, rows: F32, table: F32) -> None:
    """Multiply `values`, elements `start` and on of a matrix, by the scales of their places.

    Row i has the column scales table[i mod len(table)]: one row of them, or those of a share.
    """
    every, cols = table.shape
    for row, col, block in blocks(values, start, cols):
        for down in range(min(every, len(block))):
            part, columns = block[down::every], table[(row + down) % every]
            np.multiply(part, columns[col : col + block.shape[1]], out=part)
        np.multiply(block, rows[row : row + len(block), None], out=block)


def inverse_scales(rows: F16, columns: F16, bits: int) -> tuple[F32, F32]:
    """What a superposition is multiplied by before it is cut: about unit variance comes out."""
    along, across = rows.astype(np.float32), columns.astype(np.float32)
    with np.errstate(divide="ignore"):
        along = np.where(along > 0, np.float32(gain(bits)) / along, np.float32(0))
        across = np.where(across > 0, np.float32(1) / across, np.float32(0))
    return along, across
