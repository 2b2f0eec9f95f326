"""`seal`: a bank whose superpositions are cut to few bits, read-only and much smaller.

Two passes over the live sums, and none over checkpoints: exact sums of squares of rows and
columns decide the scales, then every value becomes a code. Both are functions of the bank's
integers alone, so the bytes do not depend on threads, strips or the machine. Each pass checks
the digests of what it reads: a bank that changes between them is damaged, not sealed.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from randes_cli.build.copies import closing_tensors, content_keys, copy_tensors
from randes_cli.core.arrays import F16, F32, I64, Raw
from randes_cli.core.codes import (
    encode,
    fit_scales,
    inverse_scales,
    multiply_scales,
    pack_codes,
)
from randes_cli.core.kernel import code_dtype
from randes_cli.core.levels import SEAL_BITS
from randes_cli.core.share import Share
from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.atomic import atomic_file, check_space, check_target
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import sealed_tensors, sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import digest
from randes_cli.files.guard import one_command
from randes_cli.files.location import Place, as_place
from randes_cli.files.lock import bank_lock, edited_bank
from randes_cli.files.manifest import Manifest
from randes_cli.files.records import SealRecord
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.plan import CHUNK_ELEMENTS, Rect, chunks, sealable, share_of, tensor_bytes
from randes_cli.reports import SealReport
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo
from randes_cli.stats.alternatives import parse_limit
from randes_cli.stats.stored import (
    stored_lengths,
    stored_statistics,
    with_defaults,
)
from randes_cli.stats.summaries import summaries
from randes_cli.workers import Progress, no_progress, run_jobs, thread_count

J = TypeVar("J")
Units: TypeAlias = NDArray[np.int16] | NDArray[np.int8]

#: Elements that are cut at once; a multiple of eight, so that codes end on a byte.
_STRIP = 2**16


@dataclass(frozen=True, slots=True)
class _Sum:
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


def check_seal_bits(bits: int) -> int:
    """Return `bits` when a superposition can be sealed to them; raise UsageError else."""
    if bits not in SEAL_BITS:
        raise UsageError(f"--bits must be one of {', '.join(map(str, SEAL_BITS))}, not {bits}")
    return bits


def live_groups(manifest: Manifest) -> list[int]:
    """The groups that can still change."""
    return [group for group in range(manifest.groups) if group not in manifest.sealed]


@one_command()
def seal(
    bank: StrPath,
    out: StrPath | None,
    bits: int,
    run: RunOptions | None = None,
    *,
    force: bool = False,
    wait: float = 0.0,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> SealReport:
    """Write to `out` (None: in place) the bank with its live groups cut to `bits` an element.

    Groups that are sealed already stay as they are. Tensors too small for scales of their own
    (vectors) stay live sums of a read-only group.
    Raises UsageError (nothing live to seal), BankDamaged, BankLocked, NoSpace.
    """
    run, target = run or RunOptions(), as_place(as_source(bank if out is None else out))
    itself = out is None or _same_place(target, bank)
    target = edited_bank(target) if itself else target
    check_seal_bits(bits)
    source = target if itself else bank
    if dry_run:
        return seal_locked(source, target, bits, run, dry_run=True, progress=progress)
    if out is not None:
        check_target(target, force=force)
    with bank_lock(target, wait=wait, edits=itself):
        return seal_locked(source, target, bits, run, force=force or out is None, progress=progress)


def _same_place(target: Place, bank: StrPath) -> bool:
    other = as_place(as_source(bank))
    if isinstance(target, Path) and isinstance(other, Path):
        target, other = target.resolve(), other.resolve()
    return bool(target == other)


def seal_locked(
    bank: StrPath,
    target: Place,
    bits: int,
    run: RunOptions,
    *,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> SealReport:
    """`seal`, where the caller holds the lock of `target`."""
    with open_bank(as_source(bank)) as old:
        return _Sealing(old, bits, run, progress).run(target, force=force, dry_run=dry_run)


def fit_bits(bank: StrPath, limit: str | None) -> int:
    """The most bits with which a sealed bank is within `limit` (see `parse_limit`).

    Raises UsageError where none is.
    """
    with open_bank(as_source(bank)) as file:
        base = tensor_bytes(file.manifest.base.tensors.values())
    most = parse_limit(limit or "", base)
    for bits in sorted(SEAL_BITS, reverse=True):
        size = seal(bank, bank, bits, dry_run=True).bytes_after
        if size <= most:
            return bits
    raise UsageError(f"{bank}: --fit {limit}: even one bit takes {size} bytes, more than {most}")


class _Sealing:
    """One sealing under way."""

    def __init__(self, old: BankFile, bits: int, run: RunOptions, progress: Progress) -> None:
        self.old, self.bits, self.progress = old, bits, progress
        self.threads = thread_count(run.threads, old.manifest.base.tensors.values())
        self.strip = max(8, (run.strip_elements or _STRIP) // 8 * 8)
        manifest = old.manifest
        named = manifest.base.tensors
        self.groups = live_groups(manifest)
        held = {task.group for task in manifest.tasks} | {g for _, g in manifest.forgotten}
        self.groups = [group for group in self.groups if group in held]
        if not held:
            old.require_tasks()
        if not self.groups:
            raise UsageError(f"{old.path}: every group is sealed already; pack anew to change bits")
        self.sums = [
            self._sum(group, tensor)
            for group in self.groups
            for tensor in named.values()
            if sum_key(group, tensor.name) in old and sealable(tensor)
        ]
        if not any(map(sealable, named.values())):
            raise UsageError(f"{old.path}: no tensor is wide enough for the scales that seals need")
        self.squares: dict[str, tuple[I64, I64]] = {}
        self.scales: dict[str, tuple[F32, F32]] = {}
        self.lock = threading.Lock()

    def _sum(self, group: int, tensor: TensorInfo) -> _Sum:
        stored = self.old.info(sum_key(group, tensor.name))
        share = share_of(tensor, group, self.old.manifest.shares)
        return _Sum(group, tensor, share, chunks(*stored.matrix))

    def run(self, target: Place, *, force: bool, dry_run: bool) -> SealReport:
        made = [tensor for one in self.sums for tensor in self._tensors(one)]
        gone = {one.key for one in self.sums}
        kept = [key for key in content_keys(self.old) if key not in gone]
        freed = sum(self.old.info(key).nbytes for key in gone)
        size = self.old.header.file_size - freed + sum(tensor.nbytes for tensor in made)
        sealed = {**self.old.manifest.sealed}
        sealed.update({group: SealRecord(self.bits) for group in self.groups})
        manifest = with_defaults(self.old.manifest.with_sealed(sealed), *stored_lengths(self.old))
        report = self._report(target, manifest, size, dry_run=dry_run)
        if dry_run:
            return report
        check_space(target, size)
        self._measure()
        with atomic_file(target, force=force) as file:
            file.reserve(size)
            candidates = [*map(self.old.info, kept), *made, *closing_tensors()]
            writer = BankWriter(file, candidates)
            copy_tensors(writer, self.old, kept, self.progress)
            self._write_scales(writer)
            for one in self.sums:
                writer.place(self._tensors(one)[1])
            self._cut(writer)
            return replace(report, bytes_after=writer.finish(manifest))

    def _tensors(self, one: _Sum) -> tuple[TensorInfo, TensorInfo]:
        return sealed_tensors(one.group, one.tensor, self.bits, one.share)

    def _report(self, target: Place, manifest: Manifest, size: int, *, dry_run: bool) -> SealReport:
        statistics = stored_statistics(self.old)
        return SealReport(
            bank=str(target),
            dry_run=dry_run,
            bits=self.bits,
            groups=tuple(self.groups),
            bytes_before=self.old.header.file_size,
            bytes_after=size,
            before=summaries(self.old.manifest, statistics),
            after=summaries(manifest, statistics),
        )

    # First pass: scales

    def _measure(self) -> None:
        for one in self.sums:
            table = np.zeros((one.share.every, one.share.shape[1]), np.int64)
            self.squares[one.key] = np.zeros(one.share.rows, np.int64), table
        jobs = [(one, number, rect) for one in self.sums for number, rect in enumerate(one.grid)]
        total = sum(self.old.info(one.key).nbytes for one in self.sums)

        def work(job: tuple[_Sum, int, Rect]) -> int:
            return self._measure_chunk(*job)

        self._parallel(jobs, work, "measuring", total)
        for one in self.sums:
            rows, columns = inverse_scales(*self._fitted(one), self.bits)
            self.scales[one.key] = rows, one.share.table(columns)

    def _fitted(self, one: _Sum) -> tuple[F16, F16]:
        along, table = self.squares[one.key]
        return fit_scales(along, one.share.columns(table), self.bits, one.share)

    def _measure_chunk(self, one: _Sum, number: int, rect: Rect) -> int:
        """Add the squares of a chunk's elements to those of its rows and columns."""
        place = rect.start
        along, table = self.squares[one.key]
        for units in np.split(self._units(one, number, rect), range(_STRIP, rect.elements, _STRIP)):
            squares = units.astype(np.int64)
            np.multiply(squares, squares, out=squares)
            with self.lock:
                _add_squares(squares, place, along, table)
            place += len(units)
        return rect.elements * ITEM_SIZE[self.old.info(one.key).dtype]

    def _units(self, one: _Sum, number: int, rect: Rect) -> Units:
        """The elements of one chunk of a live superposition, its digest checked."""
        size = ITEM_SIZE[self.old.info(one.key).dtype]
        raw = np.empty(rect.elements * size, np.uint8)
        self.old.read_into(one.key, rect.start * size, raw)
        if digest(raw) != self.old.digest(one.key, number):
            raise BankDamaged(
                f"{self.old.path}: tensor {one.key!a} is damaged (see: randes verify)"
            )
        units: Units = raw.view(code_dtype(8 * size))
        return units

    def _write_scales(self, writer: BankWriter) -> None:
        for one in self.sums:
            rows, columns = self._fitted(one)
            data = np.concatenate([rows, columns]).astype("<f2").tobytes()
            writer.add_whole(self._tensors(one)[0], data)

    # Second pass: codes

    def _cut(self, writer: BankWriter) -> None:
        """Jobs of 2^23 elements make whole chunks of codes, `bits` of them each."""
        span = 8 * CHUNK_ELEMENTS
        jobs = [(one, start) for one in self.sums for start in range(0, one.elements, span)]
        total = sum(self.old.info(one.key).nbytes for one in self.sums)

        def work(job: tuple[_Sum, int]) -> int:
            one, start = job
            count = min(span, one.elements - start)
            codes = np.concatenate(self._codes(one, start, count))
            writer.write(one.key, start // 8 * self.bits, codes)
            first = start // span * self.bits
            for place in range(0, len(codes), CHUNK_ELEMENTS):
                value = digest(codes[place : place + CHUNK_ELEMENTS])
                writer.set_digest(one.key, first + place // CHUNK_ELEMENTS, value)
            return count * ITEM_SIZE[self.old.info(one.key).dtype]

        self._parallel(jobs, work, "sealing", total)

    def _codes(self, one: _Sum, start: int, count: int) -> list[Raw]:
        """The codes of elements `start` (a multiple of eight) and on."""
        rows, table = self.scales[one.key]
        made, place = [], start
        for units in _in_eights(self._span(one, start, count)):
            for part in np.split(units, range(self.strip, len(units), self.strip)):
                values = part.astype(np.float32)
                multiply_scales(values, place, rows, table)
                made.append(pack_codes(encode(values, self.bits), self.bits))
                place += len(part)
        return made

    def _span(self, one: _Sum, start: int, count: int) -> Iterator[Units]:
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


def _add_squares(squares: I64, start: int, along: I64, table: I64) -> None:
    """Add squares of elements `start` and on to the sums of their rows and columns.

    `table` has those of columns as `multiply_scales` has their scales.
    """
    place, (every, cols) = 0, table.shape
    while place < len(squares):
        row, col = divmod(start + place, cols)
        height = 0 if col else (len(squares) - place) // cols
        width = cols if height else min(cols - col, len(squares) - place)
        part = squares[place : place + max(1, height) * width].reshape(-1, width)
        along[row : row + len(part)] += part.sum(axis=1)
        for down in range(min(every, len(part))):
            sums = part[down::every].sum(axis=0)
            table[(row + down) % every, col : col + width] += sums
        place += part.size
