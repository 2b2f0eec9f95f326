"""Superpositions that are cut as soon as they are complete, one unit at a time.

Jobs write a unit's sums to a spool file, as they would to a live bank. When its last chunk is there
their squares are, too, so that scales are fitted and all is cut, and the file is free again.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from randes_cli.build.cutting import (
    SPAN,
    Squares,
    Sum,
    add_to,
    fitted_to,
    no_squares,
    scale_bytes,
    write_codes,
)
from randes_cli.build.jobs import Job
from randes_cli.build.many import Many
from randes_cli.build.sealed_layout import SealedLayout
from randes_cli.build.tally import Tally
from randes_cli.core.agreement import Agreement
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import Scales, Units
from randes_cli.files.bank_keys import sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.container import Container
from randes_cli.files.disk import OutputFile
from randes_cli.files.spool import Spool, SpoolFile
from randes_cli.files.tensor_sink import TensorSink
from randes_cli.plan import Unit

#: Elements that are read back and cut at once: a multiple of eight, and few enough for the cache.
_PIECE = 2**18


@dataclass
class _Open:
    """A unit under way, or many small ones: a spool file, where sums lie there, and their squares.

    `left` are the spans that are still to be cut.
    """

    file: SpoolFile
    sums: dict[str, Sum]
    bits: dict[str, int]
    starts: dict[str, int]
    size: int
    squares: dict[str, Squares]
    left: int = 0
    scales: dict[str, Scales] = field(default_factory=dict)

    def read(self, key: str, start: int, count: int) -> Units:
        """Stored elements `start` and on."""
        size = self.bits[key] // 8
        raw = np.empty(count * size, np.uint8)
        self.file.read_at(raw, self.starts[key] + start * size)
        units: Units = raw.view(code_dtype(self.bits[key]))
        return units


class Cutter(TensorSink):
    """A sink for jobs that keeps from the bank the sums that are cut.

    Attributes:
        found: of each sum that is cut, by key, how its codes agree with it, and the part that
            values count in.
    """

    def __init__(
        self,
        writer: BankWriter,
        layout: SealedLayout,
        spool: Spool,
        tally: Tally,
        width: Callable[[Unit], int],
    ) -> None:
        self.writer, self.layout, self.spool, self.tally = writer, layout, spool, tally
        self.width = width
        self.found: dict[str, tuple[Agreement, int]] = {}
        self._cut = {one.key: one for one in layout.sums}
        self._unit_of = layout.draft.unit_of
        self._bundles: list[Sequence[Unit]] = []
        self._bundle_of: dict[Unit, int] = {}
        self._left: Counter[int] = Counter()
        self._open: dict[int, _Open] = {}
        self._spans = deque[tuple[_Open, Sum, int]]()
        self._lock = threading.Lock()

    def takes(self, key: str) -> bool:
        """Whether a superposition is cut."""
        return key in self._cut

    # As a sink

    def has_bytes(self, key: str) -> bool:
        """None has: all is made anew."""
        return False

    @contextmanager
    def file_of(self, key: str) -> Iterator[tuple[OutputFile, int]]:
        """The file that a tensor is written to, and the offset of its first byte there."""
        if key in self._cut:
            yield self._place(key)
            return
        with self.writer.file_of(key) as found:
            yield found

    @contextmanager
    def files_of(self, keys: Sequence[str]) -> Iterator[list[tuple[OutputFile, int]]]:
        """`file_of` of several tensors, whose files stay open together."""
        with self.writer.files_of([key for key in keys if key not in self._cut]) as found:
            left = iter(found)
            yield [self._place(key) if key in self._cut else next(left) for key in keys]

    def _place(self, key: str) -> tuple[OutputFile, int]:
        opened = self._opened(self._unit_of[self._cut[key].tensor.name])
        return opened.file, opened.starts[key]

    def container_of(self, key: str) -> Container:
        """The layout of the file that a tensor is in."""
        return self.writer.container_of(key)

    def arrived(self, key: str, chunks: Iterable[int]) -> None:
        """Chunks are written, and their digests are known."""
        self.writer.arrived(key, chunks)

    def set_digest(self, key: str, chunk: int, value: bytes) -> None:
        """Record the digest of one chunk: of a sum that is cut nobody asks for it."""
        if key not in self._cut:
            super().set_digest(key, chunk, value)

    def _opened(self, unit: Unit) -> _Open:
        """The file of a unit, taken when its first sum is written."""
        number = self._bundle_of[unit]
        with self._lock:
            found = self._open.get(number)
            if found is None:
                found = self._open[number] = self._begun(self._bundles[number])
            return found

    def _begun(self, units: Sequence[Unit]) -> _Open:
        sums, bits, starts, at = dict[str, Sum](), dict[str, int](), dict[str, int](), 0
        for unit in units:
            for key in (sum_key(group, n) for group in self.layout.groups for n in unit.names):
                if key in self._cut:
                    one, width = self._cut[key], self.width(unit)
                    sums[key], bits[key], starts[key] = one, width, at
                    at += one.elements * width // 8
        squares = {key: no_squares(one.share) for key, one in sums.items()}
        return _Open(self.spool.take(), sums, bits, starts, at, squares)

    # As jobs are done

    def begin(self, jobs: Sequence[Job | Many]) -> None:
        """These jobs are to come."""
        self._bundles, self._bundle_of, self._left = [], {}, Counter()
        for job in jobs:
            units = job.units if isinstance(job, Many) else [job.unit]
            if units[0] not in self._bundle_of:
                self._bundle_of |= dict.fromkeys(units, len(self._bundles))
                self._bundles.append(units)
            self._left[self._bundle_of[units[0]]] += 1

    def done(self, job: Job | Many) -> None:
        """A job has written its part of the sums; help to cut those that are complete."""
        units = job.units if isinstance(job, Many) else [job.unit]
        number = self._bundle_of[units[0]]
        opened = self._open.get(number)
        if opened is not None and isinstance(job, Many):
            for key, one in opened.sums.items():
                self._measure(opened, key, 0, one.elements)
        elif opened is not None and isinstance(job, Job):
            self._measure_job(opened, job)
        with self._lock:
            self._left[number] -= 1
            opened = None if self._left[number] else self._open.pop(number, None)
        if opened is not None:
            self._complete(opened)
        while (span := self._next_span()) is not None:
            self._write_span(*span)

    def _measure_job(self, opened: _Open, job: Job) -> None:
        """Add up the squares of a job's part of each sum."""
        inside = job.rect.above(job.unit.rows)
        if inside is None or job.unit in self.tally.peaks:
            return
        for part, position in job.sums():
            key = sum_key(part.group, job.unit.names[position])
            if key in opened.sums:
                share = opened.sums[key].share
                ends = inside.start, inside.start + inside.elements
                self._measure(opened, key, *map(share.place, ends))

    def _measure(self, opened: _Open, key: str, start: int, stop: int) -> None:
        for at in range(start, stop, _PIECE):
            units = opened.read(key, at, min(_PIECE, stop - at))
            add_to(opened.squares[key], units, at, self._lock)

    def _complete(self, opened: _Open) -> None:
        """Fit the scales of sums, and have them cut; those that overflowed come again."""
        spans, bits = list[tuple[_Open, Sum, int]](), self.layout.bits
        for key, one in opened.sums.items():
            if self._unit_of[one.tensor.name] in self.tally.peaks:
                continue
            squares = opened.squares[key]
            fitted = fitted_to(squares, one.share, bits)
            scales = opened.scales[key] = Scales.of(fitted, one.share, bits)
            self.found[key] = Agreement(sum(squares[0].tolist())), scales.part
            self.writer.write_whole(self.layout.pair(one)[0], scale_bytes(*fitted))
            spans += [(opened, one, start) for start in range(0, one.elements, SPAN)]
        opened.left = len(spans)
        with self._lock:
            self._spans += spans
        if not spans:
            self.spool.give(opened.file, opened.size)

    def _next_span(self) -> tuple[_Open, Sum, int] | None:
        with self._lock:
            return self._spans.popleft() if self._spans else None

    def _write_span(self, opened: _Open, one: Sum, start: int) -> None:
        stop, key = min(start + SPAN, one.elements), one.key
        pieces = (opened.read(key, at, min(_PIECE, stop - at)) for at in range(start, stop, _PIECE))
        bits, scales = self.layout.bits, opened.scales[key]
        near = write_codes(self.writer, key, start, bits, pieces, scales)
        with self._lock:
            agreement, part = self.found[key]
            self.found[key] = agreement.joined(near), part
            opened.left -= 1
            free = not opened.left
        if free:
            self.spool.give(opened.file, opened.size)
