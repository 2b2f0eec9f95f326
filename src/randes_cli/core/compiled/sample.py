"""Samples of deltas, read, subtracted and measured in one call for all tasks: see `sample.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from randes_cli.core.arrays import F32, F64, address
from randes_cli.core.compiled.library import library
from randes_cli.core.compiled.run import DTYPES, NOWHERE, SIGNS, Place, named
from randes_cli.specs import Signs

#: (first element, elements) of each run.
RunList: TypeAlias = Sequence[tuple[int, int]]


class Lies(NamedTuple):
    """Where a tensor lies (None: it is all zeros), and its dtype."""

    place: Place | None
    dtype: str


class _Lies(ctypes.Structure):
    _fields_ = (*named("at_file at dtype", ctypes.c_int64),)


class _Runs(ctypes.Structure):
    _fields_ = (
        *named("runs elements", ctypes.c_int64),
        *named("starts counts raw base", ctypes.c_void_p),
    )


class SignBits(ctypes.Structure):
    """As Signs in fused.h."""

    _fields_ = (
        ("bits", ctypes.c_char_p),
        *named("first rows cols count", ctypes.c_int64),
        ("scratch", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("kind", ctypes.c_int32),
    )


class _Reading:
    """Runs of a base and of tensors, as `sample.c` takes them."""

    def __init__(self, runs: RunList, base: Lies, tensors: Sequence[Lies]) -> None:
        self._table = table = np.array(runs, np.int64).reshape(-1, 2).T.copy()
        self.elements = int(table[1].sum())
        self._raw = np.empty(2 * int(table[1].max(initial=0)), np.uint8)
        self._zero = np.empty(self.elements, np.float32)
        places = map(address, (table[0], table[1], self._raw, self._zero))
        self._runs = _Runs(len(runs), self.elements, *places)
        self._lie = (_Lies * (1 + len(tensors)))(*map(_packed, (base, *tensors)))
        others = ctypes.byref(self._lie, ctypes.sizeof(_Lies))
        self.arguments = ctypes.byref(self._runs), self._lie, others, len(tensors)


def read_deltas(runs: RunList, base: Lies, tensors: Sequence[Lies]) -> F32 | None:
    """Each tensor less the base on `runs`: a row a tensor.

    None where that is not compiled, or anything is in its way: the end of a file, another dtype,
    a value that is not finite.
    """
    compiled = library()
    if compiled is None or not all(one.dtype in DTYPES for one in (base, *tensors)):
        return None
    reading = _Reading(runs, base, tensors)
    out = np.empty((len(tensors), reading.elements), np.float32)
    failed = compiled.randes_deltas(*reading.arguments, address(out))
    return None if failed else out


def read_spreads(runs: RunList, base: Lies, tensors: Sequence[Lies]) -> tuple[F64, F64] | None:
    """Of each row of `read_deltas` the sum of squares and the largest magnitude; None as there.

    The sum is `np.square(row, dtype=np.float64).sum()`, added in NumPy's order.
    """
    compiled = library()
    if compiled is None or not all(one.dtype in DTYPES for one in (base, *tensors)):
        return None
    reading = _Reading(runs, base, tensors)
    delta = np.empty(reading.elements, np.float32)
    found = np.zeros((2, len(tensors)))
    failed = compiled.randes_spreads(*reading.arguments, *map(address, (delta, *found)))
    return None if failed else (found[0], found[1])


def put_on_grid(delta: F32, bits: int, out: F64) -> float | None:
    """Write a row of deltas in units of which the largest has `bits`; return the unit.

    None where that is not compiled.
    """
    compiled = library()
    if compiled is None or not (delta.flags.c_contiguous and out.flags.c_contiguous):
        return None
    unit: float = compiled.randes_on_grid(address(delta), delta.size, bits, address(out))
    return unit


def moments(units: F64, coarse: int) -> list[int] | None:
    """Sums over a row of integers x, below 2^31, of |x|, x² and round(x / 2^coarse)⁴.

    None where that is not compiled.
    """
    compiled = library()
    if compiled is None or not units.flags.c_contiguous:
        return None
    sums = np.empty(3, np.int64)
    compiled.randes_moments(address(units), units.size, coarse, address(sums))
    made: list[int] = sums.tolist()
    return made


def signs_of(
    kind: Signs, bits: bytes, cols: int, view: tuple[int, int], runs: RunList
) -> F32 | None:
    """±1 of runs of a matrix of `cols` columns whose sign bits, of its view, are `bits`.

    None where that is not compiled.
    """
    compiled = library()
    if compiled is None:
        return None
    table = np.array(runs, np.int64).reshape(-1, 2).T.copy()
    out = np.empty(int(table[1].sum()), np.float32)
    scratch = np.empty(int(table[1].max(initial=0)) + cols + view[1] + 16, np.float32)
    signs = SignBits(bits, 0, *view, 0, address(scratch), 1.0, SIGNS[kind])
    starts, counts = map(address, table)
    compiled.randes_signs(ctypes.byref(signs), cols, starts, counts, len(runs), address(out))
    return out


def _packed(one: Lies) -> _Lies:
    return _Lies(*(one.place or NOWHERE), DTYPES[one.dtype])
