"""Samples of deltas, read and subtracted in one call for several tasks: see `sample.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, address
from randes_cli.core.fused_run import DTYPES, NOWHERE, Place, named
from randes_cli.core.library import library


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


def read_deltas(runs: Sequence[tuple[int, int]], base: Lies, tensors: Sequence[Lies]) -> F32 | None:
    """Each tensor less the base on `runs`, (first element, count) of each: a row a tensor.

    None where that is not compiled, or anything is in its way: the end of a file, another dtype,
    a value that is not finite.
    """
    compiled = library()
    if compiled is None or not all(one.dtype in DTYPES for one in (base, *tensors)):
        return None
    table = np.array(runs, np.int64).reshape(-1, 2).T.copy()
    elements = int(table[1].sum())
    raw, zero = np.empty(2 * int(table[1].max(initial=0)), np.uint8), np.empty(elements, np.float32)
    out = np.empty((len(tensors), elements), np.float32)
    how = _Runs(len(runs), elements, *map(address, (table[0], table[1], raw, zero)))
    lie = (_Lies * (1 + len(tensors)))(*map(_packed, (base, *tensors)))
    others = ctypes.byref(lie, ctypes.sizeof(_Lies))
    failed = compiled.randes_deltas(ctypes.byref(how), lie, others, len(tensors), address(out))
    return None if failed else out


def _packed(one: Lies) -> _Lies:
    return _Lies(*(one.place or NOWHERE), DTYPES[one.dtype])
