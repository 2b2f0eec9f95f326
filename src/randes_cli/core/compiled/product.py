"""Products of a few rows with a superposition as it is stored, compiled: see `product.c`."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, address
from randes_cli.core.compiled.cut import levels_with
from randes_cli.core.compiled.library import library
from randes_cli.threads import together

#: As in product.c: inputs that lie together, and what the size of a result is a multiple of.
_WIDE, _ALIGNED = 512, 32
#: Outputs that are done together, of which a part is a multiple.
_TOGETHER = 64
#: Parts for each thread: one that is disturbed takes fewer.
_EACH = 4
#: Products below which other threads are not worth waking.
_FEW = 2**22


#: How levels of codes are read, by their bits.
_levels = lru_cache(maxsize=8)(levels_with)


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("stored", "cut")),
        *((name, ctypes.c_int64) for name in ("bits", "rows", "width", "every", "group", "turned")),
        *((name, ctypes.c_int64) for name in ("tiles", "count", "y_size")),
        *((name, ctypes.c_void_p) for name in ("x", "y")),
    )


class Stored(NamedTuple):
    """A superposition as it is stored: S, rows × columns, or an m-th of its elements.

    Attributes:
        numbers: integers [rows, ⌈columns/m⌉] of 8 or 16 bits, or packed codes of them.
        bits: of a code; 0 where `numbers` are integers.
        every: m; `group`: which m-th (see `core.share`).
    """

    numbers: Any
    rows: int
    columns: int
    bits: int
    every: int
    group: int


def known() -> bool:
    """Whether products are done so here."""
    return hasattr(library(), "randes_product")


def product(x: F32, stored: Stored, *, turned: bool, threads: int) -> F32:
    """x Sᵀ for x [n, columns], in float32; x S for x [n, rows] where `turned` (of all elements).

    n is 128 at most.
    """
    width = -(-stored.columns // stored.every)
    inputs, outputs = (stored.rows, stored.columns) if turned else (width, stored.rows)
    count, every = len(x), stored.every
    tiles = -(-inputs // _WIDE)
    side = np.zeros((every, count, tiles * _WIDE), np.float32)
    for residue in range(every):
        mine = x[:, residue::every]
        side[residue, :, : mine.shape[1]] = mine
    side = side.reshape(every, count, tiles, _WIDE).transpose(0, 2, 1, 3).copy()
    made = np.zeros((count, -(-outputs // _ALIGNED) * _ALIGNED), np.float32)
    cut = _levels(stored.bits) if stored.bits else None
    how = _Product(
        address(stored.numbers),
        None if cut is None else ctypes.addressof(cut),
        *(8 * stored.numbers.itemsize, stored.rows, width, every, stored.group, turned),
        *(tiles, count, made.shape[1], address(side), address(made)),
    )
    if stored.rows * width * count < _FEW:
        threads = 1
    parts = iter(_parts(outputs, threads))  # a list's: threads may share it

    def work() -> None:
        for first, last in parts:
            library().randes_product(ctypes.byref(how), first, last)  # type: ignore[union-attr]

    together(work, threads)
    return made[:, :outputs]


def _parts(outputs: int, threads: int) -> list[tuple[ctypes.c_int64, ctypes.c_int64]]:
    """Runs of outputs, several for each thread."""
    step = outputs
    if threads > 1:
        step = -(-outputs // (_EACH * threads * _TOGETHER)) * _TOGETHER
    ends = [*range(0, outputs, max(1, step)), outputs]
    return [(ctypes.c_int64(first), ctypes.c_int64(last)) for first, last in pairwise(ends)]
