"""The two passes of `seal`: scales from sums of squares, then codes, and how near they come."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np

from randes_cli.build.span import WHOLE, Span
from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F16, I64, Raw
from randes_cli.core.codes import fit_scales
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import Scales, Units, add_squares, cut
from randes_cli.core.share import Share
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import sum_key
from randes_cli.files.digests import digest
from randes_cli.files.tensor_sink import TensorSink
from randes_cli.plan import CHUNK_ELEMENTS, Rect, chunks, sealable, share_of
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo
from randes_cli.workers import Progress, run_jobs, thread_count

J = TypeVar("J")


@dataclass(frozen=True, slots=True)
class Sum:
    """One live superposition that is cut: its group, the base's tensor, its elements."""

    group: int
    tensor: TensorInfo
    share: Share
    grid: list[Rect]

    @property
    def key(self) -> str:
        return sum_key(self.group, self.tensor.name)

    @property
    def elements(self) -> int:
        """As stored."""
        return prod(self.share.shape)


def sums_of(bank: BankFile, groups: Collection[int]) -> list[Sum]:
    """The superpositions of groups that can be cut, group by group in the order of the base."""
    made, shares = [], bank.manifest.shares
    for group in groups:
        for tensor in bank.manifest.base.tensors.values():
            key = sum_key(group, tensor.name)
            if key in bank and sealable(tensor):
                grid = chunks(*bank.info(key).matrix)
                made.append(Sum(group, tensor, share_of(tensor, group, shares), grid))
    return made


class Run(NamedTuple):
    """Chunks of a superposition: all from the first to before the last."""

    sum: Sum
    first: int
    last: int


def scale_bytes(rows: F16, columns: F16) -> bytes:
    """Scales as a bank stores them."""
    return np.concatenate([rows, columns]).astype("<f2").tobytes()


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
        self.squares: dict[str, tuple[I64, I64]] = {}
        self.scales: dict[str, Scales] = {}
        self.agreement: dict[str, Agreement] = {}
        self.lock = threading.Lock()

    # First pass: scales

    @property
    def nbytes(self) -> int:
        """Bytes that one pass reads."""
        return sum(self.old.info(one.key).nbytes for one in self.sums)

    def measure(self) -> None:
        """Find the scales."""
        self.begin()
        self.add_up([Run(one, 0, len(one.grid)) for one in self.sums])
        self.fit()

    def begin(self) -> None:
        """No element has been seen yet."""
        for one in self.sums:
            table = np.zeros((one.share.every, one.share.shape[1]), np.int64)
            self.squares[one.key] = np.zeros(one.share.rows, np.int64), table

    def add_up(self, runs: Iterable[Run]) -> None:
        """Add the squares of elements to those of their rows and columns."""
        jobs = [(run.sum, n, run.sum.grid[n]) for run in runs for n in range(run.first, run.last)]

        def work(job: tuple[Sum, int, Rect]) -> int:
            return self._measure_chunk(*job)

        self._parallel(jobs, work, "measuring", self.nbytes)

    def fit(self) -> None:
        """Fit scales to the sums of all elements."""
        for one in self.sums:
            self.take_scales(one, *self.fitted(one))
            self.agreement[one.key] = Agreement(sum(self.squares[one.key][0].tolist()))

    def take_scales(self, one: Sum, rows: F16, columns: F16) -> None:
        """Cut a superposition with these scales."""
        self.scales[one.key] = Scales.of((rows, columns), one.share, self.bits)
        self.agreement[one.key] = Agreement()

    def fitted(self, one: Sum) -> tuple[F16, F16]:
        along, table = self.squares[one.key]
        return fit_scales(along, one.share.columns(table), self.bits, one.share)

    def _measure_chunk(self, one: Sum, number: int, rect: Rect) -> int:
        """Add the squares of a chunk's elements to those of its rows and columns."""
        along, table = self.squares[one.key]
        cols = one.share.shape[1]
        first, last = rect.start // cols, -(-(rect.start + rect.elements) // cols)
        ours = np.zeros(last - first, np.int64), np.zeros_like(table)
        add_squares(self._units(one, number, rect), rect.start, *ours)
        with self.lock:
            along[first:last] += ours[0]
            table += ours[1]
        return rect.elements * ITEM_SIZE[self.old.info(one.key).dtype]

    def _units(self, one: Sum, number: int, rect: Rect) -> Units:
        """The elements of one chunk of a live superposition, its digest checked."""
        size = ITEM_SIZE[self.old.info(one.key).dtype]
        raw = np.empty(rect.elements * size, np.uint8)
        self.old.read_into(one.key, rect.start * size, raw)
        if digest(raw) != self.old.digest(one.key, number):
            raise self.old.damaged(one.key)
        units: Units = raw.view(code_dtype(8 * size))
        return units

    # Second pass: codes

    def cut(self, writer: TensorSink, only: Span = WHOLE) -> None:
        """Jobs of 2^23 elements make whole chunks of codes, `bits` of them each; `only` these."""
        span = 8 * CHUNK_ELEMENTS
        jobs = [
            (one, start)
            for one in self.sums
            for start in range(0, one.elements, span)
            if only.holds(start // span * self.bits)
        ]

        def work(job: tuple[Sum, int]) -> int:
            one, start = job
            count = min(span, one.elements - start)
            codes = np.concatenate(self._codes(one, start, count))
            writer.write(one.key, start // 8 * self.bits, codes)
            first = start // span * self.bits
            for place in range(0, len(codes), CHUNK_ELEMENTS):
                value = digest(codes[place : place + CHUNK_ELEMENTS])
                writer.set_digest(one.key, first + place // CHUNK_ELEMENTS, value)
            return count * ITEM_SIZE[self.old.info(one.key).dtype]

        self._parallel(jobs, work, "sealing", self.nbytes)

    def _codes(self, one: Sum, start: int, count: int) -> list[Raw]:
        """The codes of elements `start` (a multiple of eight) and on."""
        scales, near = self.scales[one.key], Agreement()
        made, place = [], start
        for units in _in_eights(self._span(one, start, count)):
            codes, found = cut(units, place, self.bits, scales)
            near = near.joined(found)
            made.append(codes)
            place += len(units)
        with self.lock:
            self.agreement[one.key] = self.agreement[one.key].joined(near)
        return made

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
        self, jobs: Sequence[J], work: Callable[[J], int], phase: str, total: int
    ) -> None:
        threads, progress = self.threads, self.progress
        run_jobs(jobs, work, threads=threads, phase=phase, total=total, progress=progress)


def _in_eights(pieces: Iterable[Units]) -> Iterator[Units]:
    """The same elements in pieces of multiples of eight, but for the last."""
    left: Units | None = None
    for piece in pieces:
        units = piece if left is None else np.concatenate([left, piece])
        whole = len(units) // 8 * 8
        left = units[whole:]
        if whole:
            yield units[:whole]
    if left is not None and len(left):
        yield left
