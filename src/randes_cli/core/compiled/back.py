"""Chunks that compiled code retrieves by itself, from reading a bank to writing: see `back.c`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, Array, Bools, Raw, address
from randes_cli.core.compiled.cut import read_with
from randes_cli.core.compiled.run import (
    DTYPES,
    NOWHERE,
    SHORTEST,
    SIGNS,
    Chunk,
    Place,
    named,
    refuse_unwritten,
)
from randes_cli.core.convert import NEVER_BEYOND
from randes_cli.specs import ITEM_SIZE

#: Elements that are computed, and written, at once.
_STRIP = 2**16
_ANY_F32 = 3
_BASE_DIGEST, _SUM_DIGEST, _TURNED = 1, 2, 4


class Codes(NamedTuple):
    """Codes of a sealed superposition, of `bits` each, from element `first` (of a byte) on.

    `scales` are those of rows and of columns, to be read with.
    """

    packed: Raw
    first: int
    bits: int
    scales: tuple[F32, F32]


@dataclass(frozen=True, slots=True)
class Back:
    """How a chunk is retrieved.

    Attributes:
        base: where the base's chunk lies, and its dtype; None: all zeros.
        sum: where that of the superposition lies, and its bits; or codes.
        to: where the output goes; or the memory that it is written to.
        dtype: of the output.
        flips: the bits of signs, and `scale` what they multiply.
        digests: whether those of base and sum are wanted, and that the base is finite.
        turned: whether signs are looked at: see `Came`.
    """

    base: tuple[Place, str] | None
    sum: tuple[Place, int] | Codes
    to: Place | Raw
    dtype: str
    flips: bytes
    scale: float
    digests: tuple[bool, bool]
    turned: bool


class Came(NamedTuple):
    """What a chunk came to.

    `lost` values were beyond the dtype and became its largest; `mixed`: the base is not positive
    throughout (or nobody asked); `negative`: it is, and the output is not.
    """

    lost: int
    mixed: bool
    negative: bool
    base: bytes
    sum: bytes


class _Back(ctypes.Structure):
    _fields_ = (
        *named("first count cols rows view_cols strip kind", ctypes.c_int64),
        *named("base base_at base_dtype sum sum_at sum_bits", ctypes.c_int64),
        *named("into to dtype wanted packed_first", ctypes.c_int64),
        *named("packed cut", ctypes.c_void_p),
        ("bits", ctypes.c_char_p),
        *named("out widened scratch values raw made", ctypes.c_void_p),
        ("scale", ctypes.c_double),
    )


class _Came(ctypes.Structure):
    _fields_ = (
        *named("lost mixed negative", ctypes.c_int64),
        *named("base sum", ctypes.c_uint8 * 16),
    )


#: The records of back.c as columns: for many small chunks, of which none has a Python object.
BACKS = np.dtype(
    [
        *named("first count cols rows view_cols strip kind", "i8"),
        *named("base base_at base_dtype sum sum_at sum_bits", "i8"),
        *named("into to dtype wanted packed_first", "i8"),
        *named("packed cut bits out widened scratch values raw made", "u8"),
        ("scale", "f8"),
    ]
)
_CAMES = np.dtype(_Came)
#: All that may be wanted.
WANTED = _BASE_DIGEST | _SUM_DIGEST | _TURNED


class Backer:
    """Retrieves chunks in a kernel's buffers, of `elements`: `raw` of eight bytes each."""

    def __init__(self, library: ctypes.CDLL, elements: int, base: int, scratch: int, raw: int):
        self._function = library.randes_back
        strip = min(_STRIP, max(0, elements - 64)) // 64 * 64
        self._back = _Back(strip=strip, widened=base, scratch=scratch, raw=raw, values=raw)
        self._back.made = raw + 4 * elements

    def back(self, chunk: Chunk, how: Back) -> Came | None:
        """Retrieve a chunk; None where anything kept it from its end. Then nothing counts.

        Raises OSError where a write failed.
        """
        record, made = self._back, _Came()
        if not record.strip or not _fits(chunk, how, record.strip):
            return None
        record.first, record.count, record.cols = chunk.first, chunk.count, chunk.cols
        record.rows, record.view_cols = chunk.view
        record.kind, record.bits, record.scale = SIGNS[chunk.signs], how.flips, how.scale
        base, base_dtype = how.base or (NOWHERE, "F32")
        record.base, record.base_at = base
        record.base_dtype, record.dtype = DTYPES[base_dtype], DTYPES[how.dtype]
        if how.dtype == "F32" and abs(how.scale) < NEVER_BEYOND:
            record.dtype = _ANY_F32
        cut = _take_sum(record, how.sum)
        to, memory = (NOWHERE, address(how.to)) if not isinstance(how.to, tuple) else (how.to, None)
        record.into, record.to = to
        record.out = memory
        wanted = zip((*how.digests, how.turned), (_BASE_DIGEST, _SUM_DIGEST, _TURNED), strict=True)
        record.wanted = sum(bit for asked, bit in wanted if asked)
        failed = self._function(ctypes.byref(record), ctypes.byref(made))
        del cut  # until here the record pointed to it
        refuse_unwritten(failed)
        if failed:
            return None
        ends = bytes(made.base), bytes(made.sum)
        return Came(made.lost, bool(made.mixed), bool(made.negative), *ends)

    def back_many(self, rows: Array) -> tuple[Array, Bools] | None:
        """Retrieve small chunks, each a row of `BACKS`: what they came to, and which are done.

        Rows without elements are not. Raises OSError where a write failed.
        """
        record = self._back
        if record.strip < rows["count"].max(initial=0):
            return None
        for word in ("strip", "widened", "scratch", "values", "raw", "made"):
            rows[word] = getattr(record, word)
        wide = (rows["dtype"] == DTYPES["F32"]) & (np.abs(rows["scale"]) < NEVER_BEYOND)
        rows["dtype"][wide] = _ANY_F32
        came, done = np.zeros(len(rows), _CAMES), np.zeros(len(rows), np.bool_)
        first, made, function = address(rows), address(came), self._function
        for row in np.flatnonzero(rows["count"]).tolist():
            failed = function(first + row * BACKS.itemsize, made + row * _CAMES.itemsize)
            refuse_unwritten(failed)
            done[row] = not failed
        return came, done


def _take_sum(record: _Back, found: tuple[Place, int] | Codes) -> object:
    """Say where a superposition's numbers are; returns what must live until they are read."""
    if not isinstance(found, Codes):
        (record.sum, record.sum_at), record.sum_bits = found
        return None
    cut = read_with(found.bits, found.scales)
    record.sum, record.sum_at = NOWHERE
    record.packed, record.packed_first = address(found.packed), found.first
    record.cut = ctypes.addressof(cut)
    return cut


def _fits(chunk: Chunk, how: Back, strip: int) -> bool:
    """Whether back.c knows these numbers, and makes such digests: of few bytes in one strip."""
    known = how.dtype in DTYPES and (how.base is None or how.base[1] in DTYPES)
    if not chunk.count or not known:
        return False
    if chunk.count <= strip:
        return True
    sizes = []
    if how.digests[0] and how.base is not None:
        sizes.append(ITEM_SIZE[how.base[1]])
    if how.digests[1] and not isinstance(how.sum, Codes):
        sizes.append(how.sum[1] // 8)
    return all(chunk.count * size >= SHORTEST for size in sizes)
