"""The two passes of `seal`: scales from sums of squares, then codes, and how near they come."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from randes_cli.build.copies import Copy
from randes_cli.build.seal.writing import SPAN, Room, write_codes
from randes_cli.build.span import WHOLE, Span
from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F16, F64, I64
from randes_cli.core.codes import fit_scales
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import Scales, Units, add_squares
from randes_cli.core.share import Share
from randes_cli.files.bank.checks import cut_shape
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.digests import digest
from randes_cli.plan import Rect, chunks, sealable, share_of
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo
from randes_cli.stats.lengths import norm_rows
from randes_cli.workers import Progress, mixed, run_jobs, thread_count

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


#: Sums of squares by row, and by residue of rows and column of the share.
Squares: TypeAlias = tuple[I64, I64]


def no_squares(share: Share) -> Squares:
    """Those of no element."""
    return np.zeros(share.rows, np.int64), np.zeros((share.every, share.shape[1]), np.int64)


def no_part(squares: Squares, start: int, count: int) -> Squares:
    """As `no_squares`, for `count` elements from `start` on: of rows from theirs on."""
    cols = squares[1].shape[1]
    rows = -(-(start + count) // cols) - start // cols
    return np.zeros(rows, np.int64), np.zeros_like(squares[1])


def add_part(squares: Squares, start: int, part: Squares) -> None:
    """Add those of elements `start` and on."""
    first = start // squares[1].shape[1]
    squares[0][first : first + len(part[0])] += part[0]
    squares[1][:] += part[1]


def squares_of(squares: Squares, units: Units, start: int) -> Squares:
    """Those of stored elements `start` and on, to be added to `squares` with `add_part`."""
    part = no_part(squares, start, len(units))
    add_squares(units, start, *part)
    return part


def fitted_to(squares: Squares, share: Share, bits: int) -> tuple[F16, F16]:
    """The scales of rows and columns."""
    along, table = squares
    return fit_scales(along, share.columns(table), bits, share)


def moments_of(
    base: Mapping[str, TensorInfo],
    steps: Mapping[str, int],
    groups: Iterable[int],
    found: Iterable[tuple[Sum, Agreement, int]],
) -> dict[int, F64]:
    """What became of each group's superpositions, as ``stats/sealed/<group>`` has it.

    `found` are agreements, and the part that their values count in.
    """
    rows = norm_rows(base)
    row = {name: n for n, name in enumerate(rows)}
    made = {group: np.zeros(cut_shape(len(rows))) for group in groups}
    for one, agreement, part in found:
        name = one.tensor.name
        made[one.group][:, row[name]] = agreement.moments(steps[name], part)
    return made


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

    # First pass: scales

    @property
    def nbytes(self) -> int:
        return sum(self.old.info(one.key).nbytes for one in self.sums)

    def measure(self) -> None:
        """Find the scales."""
        self.begin()
        self.add_up([Run(one, 0, len(one.grid)) for one in self.sums])
        self.fit()

    def begin(self) -> None:
        """No element has been seen yet."""
        for one in self.sums:
            self.squares[one.key] = no_squares(one.share)

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
        return fitted_to(self.squares[one.key], one.share, self.bits)

    def _measure_chunk(self, one: Sum, number: int, rect: Rect) -> int:
        """Add the squares of a chunk's elements to those of its rows and columns."""
        squares = self.squares[one.key]
        part = squares_of(squares, self._units(one, number, rect), rect.start)
        with self.lock:
            add_part(squares, rect.start, part)
        return rect.elements * ITEM_SIZE[self.old.info(one.key).dtype]

    def _units(self, one: Sum, number: int, rect: Rect) -> Units:
        """The elements of one chunk of a live superposition, its digest checked.

        Valid until the thread's next call.
        """
        size = ITEM_SIZE[self.old.info(one.key).dtype]
        raw = self._room.of(rect.elements * size)
        self.old.read_into(one.key, rect.start * size, raw)
        if digest(raw) != self.old.digest(one.key, number):
            raise self.old.damaged(one.key)
        units: Units = raw.view(code_dtype(8 * size))
        return units

    # Second pass: codes

    def cut(self, writer: TensorSink, only: Span = WHOLE, copies: Sequence[Copy] = ()) -> None:
        """Write the codes of all elements, a job for each span of them; `only` these chunks.

        Among them `copies` are made.
        """
        jobs = [
            (one, start)
            for one in self.sums
            for start in range(0, one.elements, SPAN)
            if only.holds(start // SPAN * self.bits)
        ]

        def work(job: tuple[Sum, int] | Copy) -> int:
            if isinstance(job, Copy):
                return job.into(writer)
            one, start = job
            count = min(SPAN, one.elements - start)
            pieces = _in_eights(self._span(one, start, count))
            scales = self.scales[one.key]
            near = write_codes(writer, one.key, (start, count), self.bits, pieces, scales)
            with self.lock:
                self.agreement[one.key] = self.agreement[one.key].joined(near)
            return count * ITEM_SIZE[self.old.info(one.key).dtype]

        total = self.nbytes + sum(copy.nbytes for copy in copies)
        self._parallel(mixed(jobs, copies), work, "sealing", total)

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
