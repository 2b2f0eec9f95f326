"""The passes of `seal` over integers, compiled: see `cut.c`. NumPy makes the same bytes."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F32, I64, Array, Raw, address
from randes_cli.core.codes import fine, limits_of
from randes_cli.core.compiled.library import library
from randes_cli.core.levels import levels


class _Piece(ctypes.Structure):
    _fields_ = (
        ("units", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bits", "count", "start", "cols", "every")),
    )


class _Cut(ctypes.Structure):
    _fields_ = (
        ("bits", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("rows", "table", "read_rows", "read_table")),
        *((name, ctypes.c_void_p) for name in ("limits", "levels", "several", "fine")),
        ("parts", ctypes.c_float),
    )


class _Agreement(ctypes.Structure):
    _fields_ = (("crossed", ctypes.c_int64), ("lengths", ctypes.c_int64))


def _piece(units: Any, start: int, every: int, cols: int) -> _Piece:
    return _Piece(address(units), 8 * units.itemsize, len(units), start, cols, every)


def add_squares(units: Any, start: int, along: I64, table: I64) -> bool:
    """Add squares of elements `start` and on to the sums of their rows and columns.

    `along` begins with the first of these rows. False where nothing is compiled.
    """
    compiled = library()
    if compiled is None:
        return False
    piece = _piece(units, start, *table.shape)
    compiled.randes_squares(ctypes.byref(piece), address(along), address(table))
    return True


@lru_cache(maxsize=8)
def _constants(bits: int) -> tuple[Array, ...]:
    """Thresholds between infinities, levels, those of several codes, where 8 bits begin to look."""
    together = 6 if bits == 3 else 8
    codes = np.arange(2**together)[:, None] >> np.arange(0, together, bits)
    return limits_of(bits), levels(bits), levels(bits)[codes % 2**bits], fine()


def cut(
    units: Any,
    start: int,
    bits: int,
    inverse: tuple[F32, F32],
    read: tuple[F32, F32],
    part: int,
    out: Raw,
) -> Agreement | None:
    """Write codes of elements `start` and on; how these agree with them, None: not compiled.

    `inverse` and `read` are scales of rows and tables of columns, to be cut and to be read with.
    """
    compiled = library()
    if compiled is None:
        return None
    piece = _piece(units, start, *inverse[1].shape)
    scales = map(address, (*inverse, *read, *_constants(bits)))
    how = _Cut(bits, *scales, 2.0**-part)
    found = _Agreement()
    compiled.randes_cut(ctypes.byref(piece), ctypes.byref(how), address(out), ctypes.byref(found))
    return Agreement(0, found.crossed, found.lengths)


def levels_with(bits: int) -> _Cut:
    """How levels of codes are read, as cut.h has it."""
    levels_at, several_at = map(address, _constants(bits)[1:3])
    return _Cut(bits=bits, levels=levels_at, several=several_at)


def read_with(bits: int, scales: tuple[F32, F32]) -> ctypes.Structure:
    """How codes are read, as cut.h has it. It points to the scales: they must stay."""
    made = levels_with(bits)
    made.read_rows, made.read_table = map(address, scales)
    return made


def read(packed: Raw, bits: int, start: int, scales: tuple[F32, F32], out: F32) -> bool:
    """Write what codes are read as, elements `start` (the first of a byte) and on.

    `scales` are those of rows and a table of columns. False where nothing is compiled.
    """
    compiled = library()
    if compiled is None:
        return False
    rows, table = scales
    piece = _Piece(address(packed), 8, len(out), start, *reversed(table.shape))
    how = read_with(bits, (rows, table))
    compiled.randes_read(ctypes.byref(piece), ctypes.byref(how), address(out))
    return True
