"""The library of compiled passes, where the package was built with a compiler."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec

#: As in fused.h.
_INTERFACE = 14


@cache
def library() -> ctypes.CDLL | None:
    """The compiled passes; None where the package was built without a compiler, or before an
    update that only replaced its Python files."""
    found = find_spec("randes_cli.core.compiled._fused")
    if found is None or found.origin is None:
        return None
    try:
        made = ctypes.CDLL(found.origin)
        if made.randes_interface() != _INTERFACE:
            return None
    except (OSError, AttributeError):
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    made.randes_add.argtypes = [pointer, number, pointer, pointer, pointer, pointer]
    made.randes_store.argtypes = [pointer, size, number, pointer]
    made.randes_retrieve.argtypes = [pointer, number, pointer, pointer, number, pointer]
    made.randes_digest.argtypes = [ctypes.c_char_p, size, size, ctypes.c_char_p]
    made.randes_digest.restype = None
    made.randes_run.argtypes = [pointer, pointer, pointer]
    made.randes_back.argtypes = [pointer, pointer]
    made.randes_deltas.argtypes = [pointer, pointer, pointer, ctypes.c_int64, pointer]
    integer = ctypes.c_int64
    made.randes_spreads.argtypes = [pointer, pointer, pointer, integer, pointer, pointer, pointer]
    made.randes_on_grid.argtypes = [pointer, size, number, pointer]
    made.randes_moments.argtypes = [pointer, size, number, pointer]
    made.randes_signs.argtypes = [pointer, integer, pointer, pointer, integer, pointer]
    made.randes_squares.argtypes = [pointer, pointer, pointer]
    made.randes_read.argtypes = [pointer, pointer, pointer]
    made.randes_cut.argtypes = [pointer, pointer, pointer, pointer]
    made.randes_widen.argtypes = [pointer, number, pointer, size]
    for name in ("store", "retrieve", "run", "back", "deltas", "spreads"):
        getattr(made, f"randes_{name}").restype = ctypes.c_int64
    made.randes_streams.argtypes = [ctypes.c_char_p, pointer, pointer, ctypes.c_int64, pointer]
    made.randes_on_grid.restype = ctypes.c_double
    for name in ("widen", "streams", "signs"):
        getattr(made, f"randes_{name}").restype = None
    return made
