"""Updates of weights: most of low rank, weight + unit · left · right, exactly.

That product is a sum of integers: factors are rounded to as many bits of their largest magnitude
(24 at rank 16) as let float64 hold every partial sum exactly, so that the result depends neither
on strips nor on threads or the BLAS. Then it is rounded once to the dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, frexp, log2
from typing import Protocol

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


class Elements(Protocol):
    """An update, or a matrix that one is made of."""

    def elements(self, start: int, count: int) -> F64:
        """`count` elements from element `start`, in the order of its rows."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """An update in blocks of equal shape, one after another: unit · left[e] · right[e].

    `left` is (blocks, rows, rank), `right` (blocks, rank, columns), both integers.
    """

    left: F64
    right: F64
    unit: float

    def elements(self, start: int, count: int) -> F64:
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


@dataclass(frozen=True, slots=True)
class Whole:
    """A matrix that is stored as it is, times `scaling`; `values(start, count)` are its own."""

    values: Callable[[int, int], F64]
    scaling: float = 1.0

    def elements(self, start: int, count: int) -> F64:
        return self.values(start, count) * self.scaling


@dataclass(frozen=True, slots=True)
class Hadamard:
    """The product of two matrices of one shape, element by element."""

    first: Elements
    second: Elements

    def elements(self, start: int, count: int) -> F64:
        return self.first.elements(start, count) * self.second.elements(start, count)


@dataclass(frozen=True, slots=True)
class Kronecker:
    """left ⊗ right, of which `right` has so many `rows` and `columns`."""

    left: F64
    right: Elements
    rows: int
    columns: int

    def elements(self, start: int, count: int) -> F64:
        width = self.left.shape[1] * self.columns
        row, last = start // width, -(-(start + count) // width)
        skip, made = start - row * width, []
        while row < last:
            outer, inner = divmod(row, self.rows)
            high = min(self.rows - inner, last - row)
            block = self.right.elements(inner * self.columns, high * self.columns)
            below = block.reshape(high, 1, self.columns)
            made.append((self.left[outer][:, None] * below).reshape(-1))
            row += high
        return np.concatenate(made)[skip : skip + count]


@dataclass(frozen=True, slots=True)
class Window:
    """An update of a weight's elements from `start` up to `stop`, from its element `skip` on."""

    inner: Elements
    start: int
    stop: int
    skip: int

    def elements(self, start: int, count: int) -> F64:
        made = np.zeros(count)
        low, high = max(start, self.start), min(start + count, self.stop)
        if low < high:
            first = low - self.start + self.skip
            made[low - start : high - start] = self.inner.elements(first, high - low)
        return made


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


@dataclass(frozen=True, slots=True)
class Gains:
    """What a weight is multiplied by once updates are added (DoRA).

    One value for each row of `width` elements, or (`across`) for each column.
    """

    values: F64
    width: int
    across: bool

    def of(self, start: int, count: int) -> F64:
        """For `count` elements from element `start`."""
        places = np.arange(start, start + count)
        found: F64 = self.values[places % self.width if self.across else places // self.width]
        return found


class Squares:
    """Sums of squares of a matrix's rows, or (`across`) of its columns, exact on their own grids.

    Each row's (or column's) values are rounded to integers so small that their squares add up
    below 2^62, so that neither blocks nor machines matter: first `look`, then `add`.
    """

    def __init__(self, rows: int, width: int, *, across: bool) -> None:
        self.across, count = across, width if across else rows
        self._bits = (62 - ceil(log2(max(2, rows if across else width)))) // 2
        self._peaks, self._sums = np.zeros(count), np.zeros(count, np.int64)

    def look(self, first: int, block: F64) -> None:
        """Take the magnitudes of rows `first` and on into account."""
        peaks = np.abs(block).max(axis=0 if self.across else 1, initial=0.0)
        part = slice(None) if self.across else slice(first, first + len(block))
        self._peaks[part] = np.maximum(self._peaks[part], peaks)

    def add(self, first: int, block: F64) -> None:
        """Add the squares of rows `first` and on."""
        part = slice(None) if self.across else slice(first, first + len(block))
        units = self._units()[part]
        whole = np.rint(block / (units if self.across else units[:, None])).astype(np.int64)
        self._sums[part] += (whole * whole).sum(axis=0 if self.across else 1)

    def roots(self) -> F64:
        """The lengths."""
        found: F64 = np.sqrt(self._sums.astype(np.float64)) * self._units()
        return found

    def _units(self) -> F64:
        exponents = np.frexp(self._peaks)[1] - self._bits
        return np.ldexp(np.ones(len(exponents)), np.where(self._peaks > 0, exponents, 0))


def updated(
    raw: Raw, dtype: str, updates: Sequence[Elements], start: int, gains: Gains | None = None
) -> F64:
    """Stored values from element `start` with updates added, times their gains."""
    values = as_float64(raw, dtype)
    for update in updates:
        values += update.elements(start, len(values))
    if gains is not None:
        values *= gains.of(start, len(values))
    return values


def add_to(
    out: Raw, dtype: str, updates: Sequence[Elements], start: int, gains: Gains | None = None
) -> int:
    """Do the same to stored values in place; returns how many pass the range."""
    return store(updated(out, dtype, updates, start, gains), dtype, out)
