"""What `seal` does to sums: scales from sums of squares, then codes, and how near they come.

Scales need all rows and columns before the first code. A sum that a thread has room for is read
once; one that is larger is read twice, and first of all.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar, cast

import numpy as np

from randes_cli.build.jobs.copies import Copy
from randes_cli.build.jobs.sums import (
    Squares,
    Sum,
    add_part,
    fitted_to,
    no_squares,
    scale_bytes,
    squares_of,
)
from randes_cli.build.jobs.writing import SPAN, Room, write_codes
from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F16, Raw
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import Scales, Units, add_squares
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.digests import digest
from randes_cli.plan import WHOLE, Rect, Span
from randes_cli.specs import ITEM_SIZE, RunOptions
from randes_cli.workers import Progress, run_jobs, thread_count

J = TypeVar("J")
#: Bytes of a sum that a thread holds at the most, unless --max-memory leaves it less.
_HELD = 2**24


class Run(NamedTuple):
    """Chunks of a superposition: all from the first to before the last."""

    sum: Sum
    first: int
    last: int


class Cutting:
    """Superpositions of a bank that are cut to `bits`.

    Attributes:
        agreement: of each by its key, whole once `cut` is done.
    """

    def __init__(
        self, old: BankFile, sums: Sequence[Sum], bits: int, run: RunOptions, progress: Progress
    ) -> None:
        self.old, self.sums, self.bits, self.progress = old, sums, bits, progress
        self.run = run
        self.threads = thread_count(run.threads, old.manifest.base.tensors.values())
        self.squares: dict[str, Squares] = {}
        self.scales: dict[str, Scales] = {}
        self.agreement: dict[str, Agreement] = {}
        self.lock, self._room = threading.Lock(), Room()

    @property
    def nbytes(self) -> int:
        return sum(map(self._nbytes, self.sums))

    def _nbytes(self, one: Sum) -> int:
        return self.old.info(one.key).nbytes

    # First pass: scales

    def measure(self, writer: TensorSink, copies: Sequence[Copy]) -> Sequence[Copy]:
        """Find the scales of sums that are too large to be held; returns the copies that are left.

        Beside it their part of the copies is made: one file is written to, by one thread at a
        time, and it is not to wait.
        """
        asked = self.run.max_memory
        held = _HELD if asked is None else min(_HELD, asked // self.threads)
        large = [one for one in self.sums if self._nbytes(one) > held]
        size = sum(map(self._nbytes, large))
        soon = len(copies) * size // max(1, size + 2 * self.nbytes)
        self.begin(large)
        self.add_up([Run(one, 0, len(one.grid)) for one in large], writer, copies[:soon])
        self.fit(large)
        return copies[soon:]

    def begin(self, sums: Iterable[Sum]) -> None:
        """No element of these has been seen yet."""
        for one in sums:
            self.squares[one.key] = no_squares(one.share)

    def add_up(
        self, runs: Iterable[Run], writer: TensorSink | None = None, copies: Sequence[Copy] = ()
    ) -> None:
        """Add the squares of elements to those of their rows and columns."""
        jobs = [(run.sum, n, run.sum.grid[n]) for run in runs for n in range(run.first, run.last)]
        total = sum(rect.elements * self._item_size(one) for one, _, rect in jobs)

        def work(job: tuple[Sum, int, Rect]) -> int:
            return self._measure_chunk(*job)

        self._parallel(jobs, work, "measuring", total, writer, copies)

    def fit(self, sums: Iterable[Sum]) -> None:
        """Fit scales to the sums of all elements."""
        for one in sums:
            self.take_scales(one, *self.fitted(one))
            self.agreement[one.key] = _agreement(self.squares[one.key])

    def take_scales(self, one: Sum, rows: F16, columns: F16) -> None:
        """Cut a superposition with these scales."""
        self.scales[one.key] = Scales.of((rows, columns), one.share, self.bits)
        self.agreement[one.key] = Agreement()

    def fitted(self, one: Sum) -> tuple[F16, F16]:
        return fitted_to(self.squares[one.key], one.share, self.bits)

    def _measure_chunk(self, one: Sum, number: int, rect: Rect) -> int:
        """Add the squares of a chunk's elements to those of its rows and columns."""
        squares = self.squares[one.key]
        part = squares_of(squares, self._units(one, number, rect), rect.start)
        with self.lock:
            add_part(squares, rect.start, part)
        return rect.elements * self._item_size(one)

    def _item_size(self, one: Sum) -> int:
        return ITEM_SIZE[self.old.info(one.key).dtype]

    def _units(self, one: Sum, number: int, rect: Rect, into: Raw | None = None) -> Units:
        """The elements of one chunk of a live superposition, its digest checked.

        Valid until the thread's next call where it is not read `into` other memory.
        """
        size = self._item_size(one)
        raw = self._room.of(rect.elements * size) if into is None else into
        self.old.read_into(one.key, rect.start * size, raw)
        if digest(raw) != self.old.digest(one.key, number):
            raise self.old.damaged(one.key)
        units: Units = raw.view(code_dtype(8 * size))
        return units

    # Second pass: codes

    def cut(self, writer: TensorSink, only: Span = WHOLE, copies: Sequence[Copy] = ()) -> None:
        """Write the codes of all elements, a job for each span of them; `only` these chunks.

        One without scales is a job of its own. Among them `copies` are made.
        """
        jobs = [
            (one, start)
            for one in self.sums
            for start in (range(0, one.elements, SPAN) if one.key in self.scales else (None,))
            if start is None or only.holds(start // SPAN * self.bits)
        ]

        def work(job: tuple[Sum, int | None]) -> int:
            one, start = job
            if start is None:
                self._cut_whole(writer, one)
                return self._nbytes(one)
            count = min(SPAN, one.elements - start)
            self._cut_span(writer, one, start, count, _in_eights(self._span(one, start, count)))
            return count * self._item_size(one)

        self._parallel(jobs, work, "sealing", self.nbytes, writer, copies)

    def _cut_span(
        self, writer: TensorSink, one: Sum, start: int, count: int, pieces: Iterable[Units]
    ) -> None:
        scales = self.scales[one.key]
        near = write_codes(writer, one.key, (start, count), self.bits, pieces, scales)
        with self.lock:
            self.agreement[one.key] = self.agreement[one.key].joined(near)

    def _cut_whole(self, writer: TensorSink, one: Sum) -> None:
        """Write scales and codes of a superposition that is read once."""
        squares, size, cols = no_squares(one.share), self._item_size(one), one.share.shape[1]
        raw = self._room.of(one.elements * size)
        for number, rect in enumerate(one.grid):
            part = raw[rect.start * size : (rect.start + rect.elements) * size]
            units = self._units(one, number, rect, part)
            add_squares(units, rect.start, squares[0][rect.start // cols :], squares[1])
        rows, columns = fitted_to(squares, one.share, self.bits)
        writer.write_whole(one.sealed(self.bits)[0], scale_bytes(rows, columns))
        self.take_scales(one, rows, columns)
        self.agreement[one.key] = _agreement(squares)
        whole: Units = raw.view(code_dtype(8 * size))
        for start in range(0, one.elements, SPAN):
            count = min(SPAN, one.elements - start)
            self._cut_span(writer, one, start, count, (whole[start : start + count],))

    def _span(self, one: Sum, start: int, count: int) -> Iterator[Units]:
        """Elements `start` to `start + count` of a live superposition, in consecutive pieces.

        Chunks at its ends are read whole, for their digests.
        """
        grid = one.grid
        first = bisect_right(grid, start, key=lambda rect: rect.start) - 1
        for number in range(first, len(grid)):
            rect = grid[number]
            if rect.start >= start + count:
                return
            units = self._units(one, number, rect)
            yield units[max(0, start - rect.start) : start + count - rect.start]

    def _parallel(
        self,
        jobs: Sequence[J],
        work: Callable[[J], int],
        phase: str,
        total: int,
        writer: TensorSink | None,
        copies: Sequence[Copy],
    ) -> None:
        """Do jobs that stand for `total` bytes, and copies beside them."""

        def one(job: J | Copy) -> int:
            if writer is not None and isinstance(job, Copy):
                return job.into(writer)
            return work(cast("J", job))

        ordered: list[J | Copy] = [*jobs]
        run_jobs(
            ordered,
            one,
            threads=self.threads,
            phase=phase,
            total=total + sum(copy.nbytes for copy in copies),
            progress=self.progress,
            copies=[*copies],
        )


def _agreement(squares: Squares) -> Agreement:
    """Of a superposition that is measured and not cut yet."""
    return Agreement(sum(squares[0].tolist()))


def _in_eights(pieces: Iterable[Units]) -> Iterator[Units]:
    """The same elements in pieces of multiples of eight, but for the last.

    Each is valid until the next is asked for.
    """
    left: Units | None = None
    for piece in pieces:
        units = piece if left is None else np.concatenate([left, piece])
        whole = len(units) // 8 * 8
        left = units[whole:].copy()
        if whole:
            yield units[:whole]
    if left is not None and len(left):
        yield left
