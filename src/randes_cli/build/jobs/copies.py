"""Tensors of a bank that a new bank keeps as they are, copied and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.files.atomic import check_space
from randes_cli.files.bank.entries import header_room
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import CHECKS, MANIFEST, parse_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.output import bank_output
from randes_cli.files.bank.shards import most_bytes
from randes_cli.files.bank.tensor_sink import ShardSink, TensorSink
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.digests import DIGEST_BYTES, hasher
from randes_cli.files.local.disk import TOGETHER, OutputFile
from randes_cli.files.location import Place
from randes_cli.plan import WHOLE, Span, chunks
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress, no_progress, run_jobs, thread_count

#: Bytes that one job copies, at the most where chunks are smaller; that are read, checked and
#: written at once, while they are in a core's own cache: a gigabyte takes 0.23 s, and 0.41 where
#: the system copies it (`copy_file_range`) and what it made is read back.
_PIECE = 2**24
_AT_ONCE = 2**19


class Chunk(NamedTuple):
    """A chunk of a tensor that stays: of which tensor, which, how long, its recorded digest."""

    key: str
    number: int
    nbytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """Consecutive chunks of an old bank, side by side in both, that a new one takes over.

    `start` is the first one's first byte in its tensor.
    """

    old: BankFile
    start: int
    chunks: list[Chunk]

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self.chunks)

    def into(self, writer: TensorSink) -> int:
        """Copy and check them; returns their number of bytes. Raises BankDamaged.

        No edit carries damage over under a digest that nobody looked at. Where they lie in a
        shard that stays, nothing is done: it keeps its name and its digests.
        """
        key = self.chunks[0].key
        if writer.has_bytes(key):
            return self.nbytes
        with writer.file_of(key) as (out, offset):
            size = self._into(out, offset + self.start)
        for one in self.chunks:
            writer.arrived(one.key, (one.number,))
        return size

    def _into(self, out: OutputFile, place: int) -> int:
        key, size = self.chunks[0].key, self.nbytes
        check = _Check(self)
        far, at = self.old.far, 0
        buffer = np.empty(size if far else min(_AT_ONCE, size), np.uint8)
        while at < size:
            most = size if far else _AT_ONCE - (place + at) % TOGETHER
            part = buffer[: min(size - at, most)]
            self.old.read_into(key, self.start + at, part)
            check.update(part)
            out.write_at(part, place + at)
            at += len(part)
        return size


class _Check:
    """Compares the digests of a copy's chunks, which come one after the other."""

    def __init__(self, copy: Copy) -> None:
        self._old, self._chunks = copy.old, iter(copy.chunks)
        self._begin(next(self._chunks))

    def _begin(self, chunk: Chunk) -> None:
        self._chunk, self._left, self._running = chunk, chunk.nbytes, hasher()

    def update(self, data: Raw) -> None:
        """Take the next bytes. Raises BankDamaged at the end of a chunk that has others."""
        while len(data):
            if not self._left:
                self._begin(next(self._chunks))
            part, data = data[: self._left], data[self._left :]
            self._running.update(part.data)
            self._left -= len(part)
            if not self._left and self._running.digest() != self._chunk.digest:
                raise self._old.damaged(self._chunk.key)


def place_copies(writer: BankWriter, old: BankFile, keys: Iterable[str]) -> list[Copy]:
    """Place tensors of an old bank in a new one; returns what to copy for them."""
    keys, in_place = list(keys), old.path == writer.out.path
    for key in keys:
        writer.take_over(old.store, key, in_place=in_place)
    return _copies(old, keys, writer.address)


def copies_into(
    sink: ShardSink, old: BankFile, keys: Iterable[str], span: Span = WHOLE
) -> list[Copy]:
    """What to copy into a shard of its own, where these tensors of an old bank are placed.

    `span`: of these chunks.
    """
    keys = list(keys)
    for key in keys:
        sink.container.set_digests(key, old.digests(key))
    return _copies(old, keys, sink.address, span)


def _copies(
    old: BankFile,
    keys: Iterable[str],
    address: Callable[[str], tuple[int, int]],
    span: Span = WHOLE,
) -> list[Copy]:
    """Copies of tensors that are placed; `address` is a tensor's file, and its offset there."""
    made = list[Copy]()
    ends, room = ((0, -1), (0, -1)), 0
    for key in keys:
        tensor, digests = old.info(key), old.digests(key)
        (file, start), (target_file, target) = old.store.address(key), address(key)
        size, at = tensor.nbytes // max(1, tensor.elements), 0
        for number, rect in enumerate(chunks(*tensor.matrix)):
            recorded = digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)]
            chunk = Chunk(key, number, rect.elements * size, recorded)
            if not span.holds(number):
                at += chunk.nbytes
                continue
            if ((file, start + at), (target_file, target + at)) != ends or chunk.nbytes > room:
                made.append(Copy(old, at, []))
                room = _PIECE
            made[-1].chunks.append(chunk)
            at, room = at + chunk.nbytes, room - chunk.nbytes
            ends = (file, start + at), (target_file, target + at)
    return made


def copy_tensors(
    writer: BankWriter, old: BankFile, keys: Iterable[str], progress: Progress
) -> None:
    """Place tensors of an old bank in a new one and copy their bytes.

    What the new one has of their last part of the bank is all among them.
    """
    copies = place_copies(writer, old, keys)
    writer.close_shard()
    total = sum(copy.nbytes for copy in copies)
    if old.far:  # several are asked for at a time
        threads = thread_count(0, far=True)
        run_jobs(
            copies,
            lambda copy: copy.into(writer),
            threads=threads,
            phase="copying",
            total=total,
            progress=progress,
        )
        return
    for copy in copies:
        progress("copying", copy.into(writer), total)


def content_keys(bank: BankFile) -> list[str]:
    """Every tensor of a bank but those that a writer makes anew."""
    made = ("manifest", "checks", "align")
    return [key for key in bank.header.tensors if parse_key(key).kind not in made]


def closing_tensors() -> list[TensorInfo]:
    """The longest that a manifest and a table of digests may be, for the header's room."""
    return [TensorInfo(MANIFEST, "U8", (2**40,)), TensorInfo(CHECKS, "U8", (2**40,))]


@contextmanager
def copied(
    old: BankFile,
    path: Place,
    room: int,
    most: int | None,
    *,
    force: bool,
    progress: Progress = no_progress,
) -> Iterator[BankWriter]:
    """The same bank under way at a place, all but its manifest."""
    check_space(path, old.size, most)
    with bank_output(path, force=force, most=most, progress=progress) as out:
        out.reserve(old.size)
        writer = BankWriter(out, room, lasting=True)
        copy_tensors(writer, old, content_keys(old), progress)
        yield writer


def rewrite_manifest(path: Place, change: Callable[[Manifest], Manifest]) -> int:
    """Replace a bank by itself with another manifest, in one commit; return its bytes.

    The caller holds the lock. Raises BankDamaged, NoSpace, InputOutputError.
    """
    with BankFile(path) as old:
        room = header_room([*old.store.as_single(), *closing_tensors()])
        most = most_bytes(None, old.size, old.most)
        with copied(old, path, room, most, force=True) as writer:
            return writer.finish(change(old.manifest))
