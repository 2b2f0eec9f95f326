"""Headers as writers make them: all entries alike, in plain ASCII, found by one pattern.

A header of 100,000 tensors takes a quarter of the time that JSON takes with its checks. Whatever
is not as plain as that, or wrong, is left to `header.parse_header`, which says what it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from randes_cli.specs import ITEM_SIZE, TensorInfo

#: Entries with a comma before each; without spaces, and with those that Python's json puts.
_NUMBER = "(?:0|[1-9][0-9]{0,17})"
_ENTRY = (
    r',{0}"([ !#-\[\]-~]+)":{0}\{"dtype":{0}"([A-Z0-9_]+)",{0}"shape":{0}\[([0-9, ]*)\],'
    r'{0}"data_offsets":{0}\[(NUMBER),{0}(NUMBER)\]\}'
).replace("NUMBER", _NUMBER)
_KINDS = {space: re.compile(_ENTRY.replace("{0}", space)) for space in ("", " ")}
_DTYPES = {dtype: dtype for dtype in ITEM_SIZE}
_SHAPE = re.compile(rf"(?:{_NUMBER}(?:, ?{_NUMBER}){{0,63}})?")


class Rows(NamedTuple):
    """Tensors in the order of their data, and each one's first and last byte there."""

    tensors: list[TensorInfo]
    starts: list[int]
    stops: list[int]


#: Characters of a header that are looked at together, about: what is found of more would take
#: several times its room.
_PIECE = 2**20
_FRAME = len(',"":{"dtype":"","shape":[],"data_offsets":[,]}')


def plain_rows(text: str, *, longest: int) -> Rows | None:
    """The entries of a header without its ``__metadata__``, from the first one's name on.

    They end in a brace. None where they are not plain, or a check finds something.
    """
    text = text.rstrip(" ")
    if not text.endswith("}}"):
        return None
    for space, entry in _KINDS.items():
        rows = _Found(longest)
        for piece in _pieces(text, space):
            if not rows.take(entry.findall(piece), len(piece), len(space)):
                break
        else:
            return rows.in_order()
        if rows.tensors:
            return None
    return None


def _pieces(text: str, space: str) -> Iterator[str]:
    """Some entries at a time, each with a comma before it: where they end no name goes on."""
    end = 0
    while end < len(text) - 1:
        cut = text.find("},", end + _PIECE) + 1 or len(text) - 1
        yield text[end:cut] if end else f",{space}{text[:cut]}"
        end = cut


class _Found:
    """Entries that were found so far; `take` says whether all is well with some more."""

    def __init__(self, longest: int) -> None:
        self.longest, self.tensors = longest, list[TensorInfo]()
        self.starts, self.stops = list[int](), list[int]()
        self._shapes = dict[str, tuple[int, ...]]()
        self._sizes = dict[tuple[str, str], int]()

    def take(self, found: list[tuple[str, str, str, str, str]], length: int, space: int) -> bool:
        if not found:
            return False
        names, dtypes, shapes, first, last = zip(*found, strict=True)
        inside = sum(sum(map(len, column)) for column in (names, dtypes, shapes, first, last))
        if inside + (_FRAME + 8 * space) * len(names) != length:
            return False  # something lies between the entries
        kinds = set(zip(dtypes, shapes, strict=True))
        if max(map(len, names)) > self.longest or not self._know(kinds):
            return False
        starts, stops = list(map(int, first)), list(map(int, last))
        nbytes = map(self._sizes.__getitem__, zip(dtypes, shapes, strict=True))
        if any(a + size != b for a, size, b in zip(starts, nbytes, stops, strict=True)):
            return False
        made = zip(
            map(sys.intern, names),
            map(_DTYPES.__getitem__, dtypes),
            map(self._shapes.__getitem__, shapes),
            strict=True,
        )
        self.tensors += map(TensorInfo._make, made)
        self.starts += starts
        self.stops += stops
        return True

    def _know(self, kinds: set[tuple[str, str]]) -> bool:
        """Read new dtypes and shapes."""
        for dtype, shape in kinds - self._sizes.keys():
            if dtype not in ITEM_SIZE or not _SHAPE.fullmatch(shape):
                return False
            self._shapes[shape] = tuple(map(int, shape.split(","))) if shape else ()
            self._sizes[dtype, shape] = prod(self._shapes[shape]) * ITEM_SIZE[dtype]
        return True

    def in_order(self) -> Rows | None:
        """All of them, in the order of their data; None where two have one name."""
        tensors, starts, stops = self.tensors, self.starts, self.stops
        names = {tensor.name for tensor in tensors}
        if len(names) < len(tensors) or "__metadata__" in names:
            return None
        if starts[1:] != stops[:-1]:
            order = sorted(range(len(starts)), key=lambda n: (starts[n], stops[n]))
            tensors = [tensors[n] for n in order]
            starts, stops = [starts[n] for n in order], [stops[n] for n in order]
        return Rows(tensors, starts, stops)
