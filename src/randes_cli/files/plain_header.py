"""Headers as writers make them: all entries alike, in plain ASCII, found by their quotes.

A header of 100,000 tensors takes a tenth of the time that JSON takes with its checks. Whatever is
not as plain as that, or wrong, is left to `header.parse_header`, which says what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import I64, Raw
from randes_cli.specs import ITEM_SIZE, Kind

_NUMBER = "(?:0|[1-9][0-9]{0,17})"
_SHAPE = re.compile(rf"(?:{_NUMBER}(?:, ?{_NUMBER}){{0,63}})?")
_QUOTE, _COMMA, _ZERO, _ESCAPE = b'",0\\'
#: The first and the last character that is printed.
_LEAST, _MOST = b" ~"
#: Quotes of an entry: of its name, of three fields, and of the dtype.
_QUOTES = 10
_MOST_DIGITS = 18
#: JSON without spaces, in UTF-8.
compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
#: Characters of a header that are looked at together, about.
_PIECE = 2**20


class Rows(NamedTuple):
    """Tensors in the order of their data.

    Attributes:
        names: of them.
        kinds: every dtype and shape that there is.
        kind_of: the number of each tensor's kind.
        starts: each one's first byte, of the data.
        stops: the byte after its last.
    """

    names: list[str]
    kinds: list[Kind]
    kind_of: I64
    starts: I64
    stops: I64

    def in_order(self) -> Rows:
        if (self.starts[1:] == self.stops[:-1]).all():
            return self
        order = np.lexsort((self.stops, self.starts))
        names = [self.names[place] for place in order.tolist()]
        return Rows(names, self.kinds, *(column[order] for column in self[2:]))


def is_plain(text: str) -> bool:
    """Whether JSON has it as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def quoted(names: Sequence[str]) -> Iterator[str]:
    """Names as JSON has them; at once where they are plain."""
    return map('"{}"'.format if is_plain("".join(names)) else compact, names)


def plain_rows(text: str, *, longest: int) -> Rows | None:
    """The entries of a header without its ``__metadata__``, from the first one's name on.

    They end in a brace. None where they are not plain, or a check finds something.
    """
    text = text.rstrip(" ")
    if not text.endswith("}}"):
        return None
    for space in ("", " "):
        found = _Found(space, longest)
        for piece in _pieces(text, space):
            if not found.take(piece):
                break
        else:
            return found.rows()
        if found.names:
            return None
    return None


def _pieces(text: str, space: str) -> Iterator[str]:
    """Some entries at a time, each with a comma before it. A cut in a name shows as no entry."""
    end = 0
    while end < len(text) - 1:
        cut = text.find("},", end + _PIECE) + 1 or len(text) - 1
        yield text[end:cut] if end else f",{space}{text[:cut]}"
        end = cut


class _Found:
    """Entries that were found so far; `take` says whether all is well with some more."""

    def __init__(self, space: str, longest: int) -> None:
        self.longest, self.names = longest, list[str]()
        #: What lies between the parts of entries: an entry is name, dtype, shape, two offsets.
        self._named, self._typed, self._shaped = (
            f'":{space}{{"dtype":{space}"',
            f'",{space}"shape":{space}[',
            f'],{space}"data_offsets":{space}[',
        )
        self._middle, self._next = f",{space}", f',{space}"'
        self._columns: list[tuple[I64, I64, I64]] = []
        self._kinds, self._numbers = dict[str, int](), dict[Kind, int]()

    def take(self, piece: str) -> bool:
        data = np.frombuffer(f"{piece}{self._next}".encode("ascii"), np.uint8)
        if data.min() < _LEAST or data.max() > _MOST or (data == _ESCAPE).any():
            return False
        quotes = np.flatnonzero(data == _QUOTE)
        if len(quotes) % _QUOTES != 1 or len(quotes) == 1 or quotes[0] != len(self._middle):
            return False
        opened, closed, *_, typed, end, _, _, offsets, _ = quotes[:-1].reshape(-1, _QUOTES).T
        last = quotes[_QUOTES::_QUOTES] - len(self._next) - 1
        shaped = offsets - self._shaped.index('"')
        first = shaped + len(self._shaped)
        frames = (
            (closed, self._named, typed + 1),
            (end, self._typed, None),
            (shaped, self._shaped, None),
            (last, f"]}}{self._next}", None),
        )
        if not all(_stands(data, *frame) for frame in frames) or (closed <= opened + 1).any():
            return False
        if (shaped < end + len(self._typed)).any() or not self._take_offsets(data, first, last):
            return False
        pairs = zip((opened + 1).tolist(), closed.tolist(), strict=True)
        self.names += [piece[start:stop] for start, stop in pairs]
        pairs = zip((typed + 1).tolist(), shaped.tolist(), strict=True)
        return self._take_kinds([piece[start:stop] for start, stop in pairs])

    def _take_offsets(self, data: Raw, first: I64, last: I64) -> bool:
        """Two numbers from one place to the other, a comma between them."""
        commas = np.flatnonzero(data == _COMMA)
        middle = commas[np.searchsorted(commas, first)]
        starts = _numbers(data, first, middle)
        stops = _numbers(data, middle + len(self._middle), last)
        if starts is None or stops is None or not _stands(data, middle, self._middle, None):
            return False
        self._columns.append((np.empty(0, np.int64), starts, stops))
        return True

    def _take_kinds(self, found: list[str]) -> bool:
        """Dtypes and shapes, each as it stands; whether they agree with the last offsets."""
        for text in dict.fromkeys(found):
            if text in self._kinds:
                continue
            dtype, _, shape = text.partition(self._typed)
            if dtype not in ITEM_SIZE or not _SHAPE.fullmatch(shape):
                return False
            kind = dtype, tuple(map(int, shape.split(","))) if shape else ()
            self._kinds[text] = self._numbers.setdefault(kind, len(self._numbers))
        sizes = [min(prod(shape) * ITEM_SIZE[dtype], 2**62) for dtype, shape in self._numbers]
        kind_of = np.fromiter(map(self._kinds.__getitem__, found), np.intp, len(found))
        _, starts, stops = self._columns[-1]
        self._columns[-1] = kind_of, starts, stops
        return bool((np.array(sizes, np.int64)[kind_of] == stops - starts).all())

    def rows(self) -> Rows | None:
        """All of them, in the order of their data; None where two have one name."""
        names, there = self.names, set(self.names)
        if len(there) < len(names) or "__metadata__" in there:
            return None
        if max(map(len, names)) > self.longest:
            return None
        columns = map(np.concatenate, zip(*self._columns, strict=True))
        return Rows(names, list(self._numbers), *columns).in_order()


def _stands(data: Raw, places: I64, text: str, end: I64 | None) -> bool:
    """Whether a text stands at each of these places, and ends where it must."""
    if (places < 0).any() or (places + len(text) > len(data)).any():
        return False
    if end is not None and not (places + len(text) == end).all():
        return False
    wanted = np.frombuffer(text.encode("ascii"), np.uint8)
    return all((data[places + at] == byte).all() for at, byte in enumerate(wanted.tolist()))


def _numbers(data: Raw, first: I64, last: I64) -> I64 | None:
    """The whole numbers between these places; None where something else is there."""
    digits = last - first
    most = int(digits.max())
    if digits.min() < 1 or most > _MOST_DIGITS or ((data[first] == _ZERO) & (digits > 1)).any():
        return None
    made = np.zeros(len(first), np.int64)
    for place in range(most):
        inside = place < digits
        value = data[np.where(inside, first + place, 0)].astype(np.int64) - _ZERO
        if ((value < 0) | (value > 9))[inside].any():
            return None
        made = np.where(inside, 10 * made + value, made)
    return made
