"""Tensors of a task from a base and sums that lie in memory as they are stored: see `swap.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, Array
from randes_cli.core.compiled.cut import read_with
from randes_cli.core.compiled.library import library
from randes_cli.core.compiled.run import DTYPES, SIGNS
from randes_cli.core.convert import NEVER_BEYOND
from randes_cli.specs import ITEM_SIZE, Signs
from randes_cli.threads import together

#: As in fused.h, where no value is beyond the dtype's range.
_ANY = {"F32": 3, "BF16": 4}
#: Elements that a thread takes at a time: at least, and at most. Each time it writes out signs and
#: a processor begins to look ahead anew, but parts are to be shared out evenly.
_PARTS = 2**17, 2**20
#: Parts for each thread, where they are not smaller or larger than that.
_EACH = 16
#: Bytes written that a processor's caches may hold; more are written past them.
_CACHED = 2**24
_NUMBERS = ("first", "last", "cols", "rows", "view_cols", "kind", "base_dtype", "dtype", "sum_bits")
_PLACES = ("base", "sum", "cut", "bits", "out")
_RECORD = np.dtype(
    [
        *((name, np.int64) for name in _NUMBERS),
        *((name, np.uintp) for name in _PLACES),
        ("scale", np.float64),
    ]
)


class Sum(NamedTuple):
    """A superposition: the address of integers of `bits`, or of codes to be read with `scales`.

    `scales` are those of rows and a table of columns; `signs` are of `flips`, times `scale`.
    """

    at: int
    bits: int
    scales: tuple[F32, F32] | None
    signs: Signs
    flips: bytes
    scale: float


class Source(NamedTuple):
    """Elements `first` to `last` of a tensor: the address of its base, and what is added to it.

    With None it is the base, of its dtype. `cols` are those of the matrix that signs are of,
    `view` the one of scales and two-sided signs.
    """

    first: int
    last: int
    cols: int
    view: tuple[int, int]
    base: int
    base_dtype: str
    dtype: str
    sum: Sum | None


def known(dtype: str) -> bool:
    """Whether tensors of a dtype are swapped so here."""
    return dtype in DTYPES and hasattr(library(), "randes_swap")


class Swap:
    """Writes the same tensors of a task again and again. What they point to must stay."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._records = np.zeros(len(sources), _RECORD)
        self._kept: list[object] = []
        for number, source in enumerate(sources):
            self._take(self._records[number : number + 1], source)
        written = sum((s.last - s.first) * ITEM_SIZE[s.dtype] for s in sources)
        self._streamed = written > _CACHED
        self._parts: dict[int, tuple[int, Array]] = {}

    def _take(self, record: Array, source: Source) -> None:
        record["first"], record["last"] = source.first, source.last
        record["cols"], record["base"] = source.cols, source.base
        record["rows"], record["view_cols"] = source.view
        record["base_dtype"], record["dtype"] = DTYPES[source.base_dtype], DTYPES[source.dtype]
        if source.sum is None:
            return
        at, bits, scales, signs, flips, scale = source.sum
        record["sum"], record["sum_bits"], record["kind"] = at, bits, SIGNS[signs]
        record["scale"] = scale
        same = source.dtype in ("F32", source.base_dtype)
        if source.dtype in _ANY and same and abs(scale) < NEVER_BEYOND:
            record["dtype"] = _ANY[source.dtype]
        self._kept.append(flips)
        record["bits"] = np.frombuffer(flips, np.uint8).ctypes.data if flips else 0
        if scales is not None:
            cut = read_with(bits, scales)
            self._kept += [cut, scales]
            record["cut"] = ctypes.addressof(cut)

    def _dealt(self, threads: int) -> tuple[int, Array]:
        """Elements of a part, and how many parts there are up to each tensor's end."""
        if threads not in self._parts:
            elements = self._records["last"] - self._records["first"]
            part = min(max(int(elements.sum()) // (_EACH * threads), _PARTS[0]), _PARTS[1])
            self._parts[threads] = part, np.cumsum(-(-elements // part))
        return self._parts[threads]

    def write(self, to: Sequence[int], *, threads: int) -> None:
        """Write every tensor whole to an address of its own."""
        self._records["out"] = to
        part, ends = self._dealt(threads)
        following = np.zeros(1, np.int64)

        def work() -> None:
            library().randes_swap(  # type: ignore[union-attr]
                ctypes.c_void_p(self._records.ctypes.data),
                ctypes.c_void_p(ends.ctypes.data),
                ctypes.c_int64(len(self._records)),
                ctypes.c_int64(part),
                ctypes.c_int(self._streamed),
                ctypes.c_void_p(following.ctypes.data),
            )

        together(work, threads)
