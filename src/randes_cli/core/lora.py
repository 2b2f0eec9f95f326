"""Low-rank updates: weight + unit · left · right, exactly.

The product is a sum of integers: factors are rounded to as many bits of their largest magnitude
(24 at rank 16) as let float64 hold every partial sum exactly, so that the result depends neither
on strips nor on threads or the BLAS. Then it is rounded once to the dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, frexp, log2

import numpy as np

from randes_cli.core.arrays import F64, Raw
from randes_cli.core.convert import narrow, widen
from randes_cli.specs import ITEM_SIZE


def factor_bits(rank: int) -> int:
    """Bits of each factor's integers that keep sums of `rank` products within 2^53."""
    return (53 - ceil(log2(rank))) // 2


def on_grid(values: F64, bits: int) -> tuple[F64, float]:
    """Values rounded to integers of at most 2^bits, and the unit: a power of two.

    The unit is NaN where a value is NaN or infinite.
    """
    peak = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(peak):
        return values, float("nan")
    unit = 2.0 ** (frexp(peak)[1] - bits) if peak else 1.0
    return np.rint(values / unit), unit


@dataclass(frozen=True, slots=True)
class LowRank:
    """An update in blocks of equal shape, one after another: unit · left[e] · right[e].

    `left` is (blocks, rows, rank), `right` (blocks, rank, columns), both integers.
    """

    left: F64
    right: F64
    unit: float

    def elements(self, start: int, count: int) -> F64:
        """`count` elements of the update from element `start`, in the order of its rows."""
        rows, cols = self.left.shape[1], self.right.shape[2]
        made = [
            self._of_block(block, *bounds)
            for block in range(start // (rows * cols), -(-(start + count) // (rows * cols)))
            for bounds in [_inside(start, count, block * rows * cols, rows * cols)]
        ]
        return made[0] if len(made) == 1 else np.concatenate(made)

    def _of_block(self, block: int, start: int, count: int) -> F64:
        left, right = self.left[block], self.right[block]
        cols = right.shape[1]
        row0, row1 = start // cols, -(-(start + count) // cols)
        skip = start - row0 * cols
        width = slice(skip, skip + count) if row1 - row0 == 1 else slice(None)
        product: F64 = (left[row0:row1] @ right[:, width]).reshape(-1)
        product *= self.unit
        return product if row1 - row0 == 1 else product[skip : skip + count]


def _inside(start: int, count: int, first: int, size: int) -> tuple[int, int]:
    """The part of `count` from `start` that a block of `size` from `first` has, from its start."""
    low, high = max(start, first), min(start + count, first + size)
    return low - first, high - low


def low_rank(lefts: F64, rights: F64, scaling: float) -> LowRank:
    """The update scaling · lefts[e] · rights[e]; see `LowRank` for the shapes."""
    bits = factor_bits(lefts.shape[2])
    left, left_unit = on_grid(lefts, bits)
    right, right_unit = on_grid(rights, bits)
    return LowRank(left, right, left_unit * right_unit * scaling)


def as_float64(raw: Raw, dtype: str) -> F64:
    """The values of stored bytes."""
    if dtype == "F64":
        exact: F64 = raw.view(np.float64).copy()
        return exact
    values = np.empty(len(raw) // ITEM_SIZE[dtype], np.float32)
    widen(raw, dtype, values)
    return values.astype(np.float64)


def store(values: F64, dtype: str, out: Raw) -> int:
    """Write values as `dtype`; returns how many pass its range and become its largest."""
    if dtype == "F64":
        out.view(np.float64)[:] = values
        return 0
    with np.errstate(over="ignore"):
        return narrow(values.astype(np.float32), dtype, out)


def add_to(out: Raw, dtype: str, updates: Sequence[LowRank], start: int) -> int:
    """Add updates, from element `start`, to stored values; returns how many pass the range."""
    values = as_float64(out, dtype)
    for update in updates:
        values += update.elements(start, len(values))
    return store(values, dtype, out)
