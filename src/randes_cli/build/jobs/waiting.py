"""Superpositions that wait, in memory or in a file, until they are whole and can be cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from randes_cli.build.jobs.sums import Squares, Sum, add_part, no_part, no_squares, squares_of
from randes_cli.core.arrays import Raw
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import Scales, Units
from randes_cli.files.spool import Spool, SpoolFile
from randes_cli.plan import Rect

#: Bytes of sums that wait in memory unless --max-memory says otherwise; others wait in files.
WAITING = 2**25
#: Elements that are read from a file and cut at once: a multiple of eight, which the cache holds.
_PIECE = 2**18
#: Bytes that the first element of a superposition lies on a multiple of.
ALIGNED = 64


class Arena:
    """Memory that is taken by the piece, and given back. One object serves all threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._memory: Raw | None = None
        self._taken: list[tuple[int, int]] = []

    def take(self, size: int) -> Raw | None:
        """So many bytes that nobody uses, with whatever they hold; None: there is no room."""
        with self._lock:
            found = self._gap(size)
            if found is None:
                return None
            if self._memory is None:
                self._memory = np.empty(self.size, np.uint8)
            place, first = found
            self._taken.insert(place, (first, first + size))
            return self._memory[first : first + size]

    def _gap(self, size: int) -> tuple[int, int] | None:
        """The first gap of so many bytes: its place among what is taken, and where it starts."""
        firsts, stops = [one[0] for one in self._taken], [one[1] for one in self._taken]
        for place, (start, stop) in enumerate(zip([0, *stops], [*firsts, self.size], strict=True)):
            if stop - start >= size:
                return place, start
        return None

    def give(self, memory: Raw) -> None:
        """Take back what was taken."""
        with self._lock:
            if self._memory is not None and len(memory):
                first = memory.ctypes.data - self._memory.ctypes.data
                self._taken.remove((first, first + len(memory)))


@dataclass
class Waiting:
    """One of them: where it lies, and the squares of the chunks that are `measured`.

    It has `bits` an element, and lies in memory, or in a file from byte `start` on.
    """

    sum: Sum
    bits: int
    start: int
    place: Raw | SpoolFile
    squares: Squares
    measured: set[int] = field(default_factory=set)
    scales: Scales | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def memory(self) -> Raw | None:
        """All of its bytes, where they are not in a file."""
        if isinstance(self.place, SpoolFile):
            return None
        return self.place[self.start : self.start + self.sum.elements * self.bits // 8]

    def read(self, start: int, count: int) -> Units:
        size, memory = self.bits // 8, self.memory
        if memory is not None:
            raw = memory[start * size : (start + count) * size]
        else:
            raw = np.empty(count * size, np.uint8)
            self.place.read_at(raw, self.start + start * size)  # type: ignore[union-attr]
        units: Units = raw.view(code_dtype(self.bits))
        return units

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, Units]]:
        """Stored elements that are there, and where each piece starts: those in memory are one."""
        most = _PIECE if self.memory is None else max(1, stop - start)
        for at in range(start, stop, most):
            yield at, self.read(at, min(most, stop - at))

    def measure(self, start: int, stop: int) -> None:
        """Add up the squares of elements that are there."""
        for at, units in self.pieces(start, stop):
            self.take(at, squares_of(self.squares, units, at))

    def room_for(self, rect: Rect) -> Squares:
        """Zeros that the squares of a chunk are added to, for `take`."""
        return no_part(self.squares, rect.start, rect.elements)

    def take(self, start: int, found: Squares) -> None:
        """Add squares of elements `start` and on, by row from theirs on and by column."""
        with self._lock:
            add_part(self.squares, start, found)


@dataclass
class Bundle:
    """A unit under way, or many small ones: their superpositions, in memory or a file of theirs.

    `left` are the spans that are still to be cut.
    """

    sums: dict[str, Waiting]
    place: Raw | SpoolFile
    size: int
    left: int = 0

    @classmethod
    def begun(cls, sums: Sequence[tuple[Sum, int]], arena: Arena, spool: Spool) -> Bundle:
        """Room for superpositions, each of so many bits an element."""
        starts, size = list[int](), 0
        for one, bits in sums:
            starts.append(size)
            size += -(-one.elements * bits // 8 // ALIGNED) * ALIGNED
        place: Raw | SpoolFile | None = arena.take(size)
        place = spool.take() if place is None else place
        made = {
            one.key: Waiting(one, bits, start, place, no_squares(one.share))
            for (one, bits), start in zip(sums, starts, strict=True)
        }
        return cls(made, place, size)

    def end(self, arena: Arena, spool: Spool) -> None:
        """Give its room back."""
        if isinstance(self.place, SpoolFile):
            spool.give(self.place, self.size)
        else:
            arena.give(self.place)
