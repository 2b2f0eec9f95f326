"""Names for the arrays that the package passes around."""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: Bytes as they are stored.
Raw: TypeAlias = NDArray[np.uint8]
F16: TypeAlias = NDArray[np.float16]
F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I8: TypeAlias = NDArray[np.int8]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Array: TypeAlias = NDArray[Any]


def firsts(ordered: Array) -> I64:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


def parts(count: int, most: int) -> list[slice]:
    """Rows in even parts of about so many, and never one alone.

    NumPy adds what lies in one row another way than what lies in several, to other last digits.
    """
    many = -(-count // max(4, most))
    return [slice(count * n // many, count * (n + 1) // many) for n in range(many)]


def address(array: Array) -> int:
    """Where its first element lies, for compiled code."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))  # four times as fast
    except (TypeError, ValueError):  # read-only, empty or not contiguous
        found: int = array.__array_interface__["data"][0]
        return found
