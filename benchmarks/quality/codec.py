"""Cutting a tensor to few bits: Lloyd–Max levels for Gaussian values, scales by row and column.

Stands in for sealed superpositions and serves the per-model baselines, so that both are cut by
the same rule and a comparison at equal bytes compares nothing else.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import erf, exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: A vector has no columns to scale: it is cut into rows of this length.
BLOCK = 64
SCALE_BYTES = 2


@cache
def levels(bits: int) -> F32:
    """The 2^bits reproduction levels of a unit Gaussian with the least squared error."""

    def density(x: float) -> float:
        return exp(-x * x / 2) / sqrt(2 * pi) if abs(x) < 40 else 0.0

    def below(x: float) -> float:
        return (1 + erf(x / sqrt(2))) / 2

    count = 2**bits
    found = [-3.5 + 7 * (at + 0.5) / count for at in range(count)]
    for _ in range(2000):
        cuts = [-50.0, *((a + b) / 2 for a, b in pairwise(found)), 50.0]
        found = [
            (density(low) - density(high)) / (below(high) - below(low))
            for low, high in pairwise(cuts)
        ]
    return np.array(found, np.float32)


def as_rows(values: F32) -> F32:
    """A matrix as it is; anything flat as rows of 64 (a shorter tail is padded with zeros)."""
    if values.ndim >= 2 and values.shape[-1] >= BLOCK and values.size > values.shape[-1]:
        return values.reshape(-1, values.shape[-1])
    padded = np.zeros(-(-values.size // BLOCK) * BLOCK, np.float32)
    padded[: values.size] = values.reshape(-1)
    return padded.reshape(-1, BLOCK)


def scales(matrix: F32) -> tuple[F32, F32]:
    """Root mean squares by row, then by column of what the rows leave, as float16 holds them."""
    rows = np.sqrt(np.mean(np.square(matrix), axis=1, keepdims=True))
    rows[rows == 0] = 1
    even = matrix / rows
    columns = np.sqrt(np.mean(np.square(even), axis=0, keepdims=True))
    columns[columns == 0] = 1
    return rows, columns.astype(np.float16).astype(np.float32)


def cut(values: F32, bits: int) -> F32:
    """`values` as `bits`-bit codes give them back."""
    matrix = as_rows(values)
    rows, columns = scales(matrix)
    if matrix.shape[0] < 8 or matrix.shape[1] == BLOCK:
        columns = np.ones_like(columns)
    even = matrix / (rows * columns)
    table = levels(bits)
    codes = np.searchsorted((table[1:] + table[:-1]) / 2, even.reshape(-1))
    made: F32 = table[codes].reshape(matrix.shape) * rows * columns
    return made.reshape(-1)[: values.size].reshape(values.shape)


def cut_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of a tensor's codes and scales on disk."""
    count = int(np.prod(shape))
    plain = len(shape) >= 2 and shape[-1] >= BLOCK and count > shape[-1]
    rows, columns = (count // shape[-1], shape[-1]) if plain else (-(-count // BLOCK), BLOCK)
    by_column = columns if rows >= 8 and columns != BLOCK else 0
    return -(-count * bits // 8) + SCALE_BYTES * (rows + by_column)
