"""Sources of tensors: checkpoints, the base inside a bank, and what reads like them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.arrays import F32, I64, Raw
from randes_cli.core.convert import values_of, widen
from randes_cli.errors import CheckpointError
from randes_cli.files.local.guard import reads_far
from randes_cli.plan import Rect
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, TensorInfo

#: Elements of the base's samples that are kept while the tasks are gone through.
_KEPT = 2**20
_LEAVE = "did its training diverge? Leave the checkpoint out"
#: Bytes between two runs that come as fast as another request to a store would.
_GAP = 2**19
_BEYOND = "beyond the range of float32 (3.4e38), in which deltas are computed"


class Source(Protocol):
    """Where tensors come from. Reads may come from several threads."""

    @property
    def source(self) -> str:
        """What to call it in messages."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Its tensors by name."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Its ``__metadata__``."""

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the tensor's bytes from byte `start` of its data.

        Raises CheckpointError or InputOutputError where they cannot be read.
        """


def place_of(source: Source | None, name: str) -> tuple[int, int] | None:
    """(file descriptor, offset of its first byte) of a tensor in an open file here; None elsewhere.

    What is compiled reads from there without asking Python.
    """
    place = getattr(source, "place", None)
    found: tuple[int, int] | None = None if place is None else place(name)
    return found


def places_of(source: Source, names: Sequence[str]) -> I64:
    """`place_of` of many tensors, one a row; (−1, 0) of those that lie elsewhere."""
    known = getattr(source, "places", None)
    found: I64 | None = None if known is None else known(names)
    if found is not None:
        return found
    places = [place_of(source, name) or (-1, 0) for name in names]
    return np.array(places, np.int64).reshape(-1, 2)


class ZeroBase:
    """A base of zeros: what the factors of a bank of adapters are superposed from."""

    def __init__(self, source: str, tensors: Mapping[str, TensorInfo]) -> None:
        self.source, self.tensors = source, tensors
        self.metadata: Mapping[str, str] = {}

    def read(self, name: str, start: int, out: Raw) -> None:
        out[:] = 0


class Renamed:
    """A source under other names: `theirs` has the inner name of each that is another."""

    def __init__(
        self, inner: Source, tensors: Mapping[str, TensorInfo], theirs: Mapping[str, str]
    ) -> None:
        self.inner, self.tensors, self._theirs = inner, tensors, theirs
        self.source, self.metadata = inner.source, inner.metadata

    def read(self, name: str, start: int, out: Raw) -> None:
        self.inner.read(self._theirs.get(name, name), start, out)

    def place(self, name: str) -> tuple[int, int] | None:
        return place_of(self.inner, self._theirs.get(name, name))

    def places(self, names: Sequence[str]) -> I64:
        return places_of(self.inner, [self._theirs.get(name, name) for name in names])


def read_raw(source: Source, name: str, start: int, elements: int) -> Raw:
    """The bytes of `elements` of a tensor from element `start` on."""
    size = ITEM_SIZE[source.tensors[name].dtype]
    raw = np.empty(elements * size, np.uint8)
    source.read(name, start * size, raw)
    return raw


def read_values(source: Source, name: str, runs: Sequence[Rect]) -> F32:
    """The float32 values of `runs`, one after the other; zeros below the tensor's last row."""
    tensor = source.tensors[name]
    size, place = ITEM_SIZE[tensor.dtype], 0
    raw = np.zeros(sum(rect.elements for rect in runs) * size, np.uint8)
    pieces = list[tuple[int, Raw]]()
    for rect in runs:
        inside = rect.above(tensor.matrix[0])
        if inside is not None:
            pieces.append((rect.start * size, raw[place : place + inside.elements * size]))
        place += rect.elements * size
    for together in near_pieces(pieces, _GAP if reads_far() else 0):
        _read_together(source, name, together)
    values = np.empty(len(raw) // size, np.float32)
    widen(raw, tensor.dtype, values)
    return values


def near_pieces(pieces: Sequence[tuple[int, Raw]], gap: int) -> list[list[tuple[int, Raw]]]:
    """Pieces (offset, bytes to fill) in order, those together between which lie up to `gap` bytes.

    With a gap of 0 each is by itself.
    """
    made: list[list[tuple[int, Raw]]] = []
    end = 0
    for start, out in pieces:
        if not gap or not made or not 0 <= start - end <= gap:
            made.append([])
        made[-1].append((start, out))
        end = start + len(out)
    return made


def _read_together(source: Source, name: str, pieces: Sequence[tuple[int, Raw]]) -> None:
    (first, out), (last, tail) = pieces[0], pieces[-1]
    if len(pieces) == 1:
        source.read(name, first, out)
        return
    whole = np.empty(last + len(tail) - first, np.uint8)
    source.read(name, first, whole)
    for start, part in pieces:
        part[:] = whole[start - first : start - first + len(part)]


class NotFinite(CheckpointError):
    """A tensor has no finite delta.

    Attributes:
        source: what has the values.
        tensor: its name.
    """

    def __init__(self, message: str, source: Source, tensor: str) -> None:
        super().__init__(message)
        self.source, self.tensor = source, tensor


def not_finite(name: str, *sources: Source) -> NotFinite:
    """The error for a tensor that has no finite delta: what is the matter, with the first at fault.

    `sources` are the base, where there is one, and then the task.
    """
    for source in sources:
        what = _what_is_not_finite(source, name)
        if what:
            where = f"{source.source}: tensor {name!r} has {what}"
            return NotFinite(f"{where} ({_LEAVE}, or set them right)", source, name)
    where = f"{sources[-1].source}: tensor {name!r} has differences from the base"
    return NotFinite(f"{where} {_BEYOND}", sources[-1], name)


def infinite_tensors(source: Source) -> list[str]:
    """The floating-point tensors with infinite values, and no NaN. Reads all of them."""
    floats = (t.name for t in source.tensors.values() if t.dtype in FLOAT_DTYPES)
    return [name for name in floats if _is_infinite(source, name)]


def _is_infinite(source: Source, name: str) -> bool:
    infinite = False
    for values in _pieces(source, name):
        if np.isnan(values).any():
            return False
        infinite |= bool(np.isinf(values).any())
    return infinite


def _pieces(source: Source, name: str) -> Iterator[NDArray[np.floating[Any]]]:
    """A tensor's values: as they are stored where that is F64, else in float32."""
    tensor = source.tensors[name]
    for first in range(0, tensor.elements, _KEPT):
        raw = read_raw(source, name, first, min(_KEPT, tensor.elements - first))
        yield values_of(raw, tensor.dtype)


def _what_is_not_finite(source: Source, name: str) -> str:
    beyond = False
    for values in _pieces(source, name):
        if not np.isfinite(values).all():
            return "NaN or infinite values"
        beyond |= bool((np.abs(values) > np.finfo(np.float32).max).any())
    return f"values {_BEYOND}" if beyond else ""


def clear_below(values: F32, rows: int, runs: Sequence[Rect]) -> None:
    """Set the elements of `runs` that lie below the first `rows` rows to zero."""
    place = 0
    for rect in runs:
        inside = rect.above(rows)
        values[place + (inside.elements if inside else 0) : place + rect.elements] = 0
        place += rect.elements


class Sample:
    """The base on some runs of rows, read once for all tasks; None is a base of zeros.

    For one thread.
    """

    def __init__(self, source: Source | None, runs: Sequence[Rect]) -> None:
        self.source, self.runs = source, runs
        self.elements = sum(rect.elements for rect in runs)
        self._values: dict[str, F32] = {}

    def values(self, name: str) -> F32 | None:
        """The base's values, all runs together; None where the base is zero."""
        if self.source is None:
            return None
        if name not in self._values:
            if (len(self._values) + 1) * self.elements > _KEPT:
                self._values.clear()
            self._values[name] = read_values(self.source, name, self.runs)
        return self._values[name]
