"""Work on one shard for several workers: runs of its tensors, or of the chunks of one.

A worker writes its run into a file of its own; when all runs of a shard are there, their bytes are
put together behind its header. Where runs end follows from sizes and the number of workers, and
leaves no trace in the shard.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from randes_cli.build.span import WHOLE, Span
from randes_cli.cluster import Cluster, Held
from randes_cli.core.share import Share
from randes_cli.errors import InputOutputError
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.output import shard_maker
from randes_cli.files.bank.shard_folder import NewShard, ShardFolder
from randes_cli.files.bank.stored_shards import StoredShards
from randes_cli.files.bank.tensor_sink import ShardSink
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.digests import DIGEST_BYTES
from randes_cli.files.location import Place as File
from randes_cli.files.location import RemotePath, absolute
from randes_cli.files.parts import JOINING
from randes_cli.files.segments import Part, Segment, Sent
from randes_cli.plan import chunks
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress

S = TypeVar("S")

#: Bytes that are read for the smallest piece in a store, about.
_LEAST_SENT = 2**24


class Item(NamedTuple):
    """A tensor that is made: bytes that are read for it, and how often it can be made apart.

    `step`: chunks that come together. `share`: it is one of a matrix, whose chunks are meant.
    """

    tensor: TensorInfo
    nbytes: int
    parts: int
    step: int = 1
    share: Share | None = None


class Piece(NamedTuple):
    """Consecutive tensors of a shard, or some chunks of one. `into`: see `Part`."""

    keys: tuple[str, ...]
    span: Span
    nbytes: int
    share: Share | None = None
    into: str = ""


def pieces_of(items: Sequence[Item], most: int, bank: File) -> list[Piece | None]:
    """A shard whole (None), or the pieces of one that would keep one worker busy for long.

    In a store that cannot make one object of several it stays whole: they would have to be read
    again.
    """
    total = sum(item.nbytes for item in items)
    if isinstance(bank, RemotePath):
        most = max(most, _LEAST_SENT)
    apart = isinstance(bank, Path) or bank.scheme in JOINING
    if not apart or total <= 2 * most:
        return [None]
    into = os.urandom(8).hex()
    return [piece._replace(into=into) for piece in cut(items, most)]


def cut(items: Sequence[Item], most: int) -> list[Piece]:
    """Pieces for which about `most` bytes are read each."""
    made, keys, held = list[Piece](), list[str](), 0
    for item in items:
        count = min(item.parts, -(-item.nbytes // most))
        if keys and (held + item.nbytes > most or count > 1):
            made.append(Piece(tuple(keys), WHOLE, held))
            keys, held = [], 0
        if count > 1:
            made += _runs(item, count)
        else:
            keys.append(item.tensor.name)
            held += item.nbytes
    return [*made, Piece(tuple(keys), WHOLE, held)] if keys else made


def _runs(item: Item, count: int) -> list[Piece]:
    ends = [item.step * (item.parts * number // count) for number in range(1, count)]
    spans = zip([0, *ends], [*ends, None], strict=True)
    return [
        Piece((item.tensor.name,), Span(first, last), item.nbytes // count, item.share)
        for first, last in spans
    ]


class Place(NamedTuple):
    """Bytes of a shard's data, from the first one to before the last."""

    start: int
    stop: int


def place_of(piece: Piece, container: Container) -> Place:
    """Where a piece lies in a shard in which all tensors are placed."""
    tensors, first, last = container.tensors, piece.keys[0], piece.keys[-1]
    start, stop = container.start(first), container.start(last) + tensors[last].nbytes
    if piece.span == WHOLE:
        return Place(start, stop)
    tensor, share = tensors[first], piece.share
    matrix = tensor.matrix if share is None else (share.rows, share.cols)
    grid, size = chunks(*matrix), tensor.nbytes // max(1, tensor.elements)

    def offset(chunk: int) -> int:
        element = grid[chunk].start
        return size * (element if share is None else share.place(element))

    if piece.span.last is not None:
        stop = start + offset(piece.span.last)
    return Place(start + offset(piece.span.first), stop)


class PieceSink(ShardSink):
    """A piece of a shard: a file that has its bytes alone."""

    def __init__(self, folder: ShardFolder, tensors: Sequence[TensorInfo], piece: Piece) -> None:
        super().__init__(folder, tensors, closed=False)
        self.piece, self.place = piece, place_of(piece, self.container)
        self.lead, self.part = -self.place.start, Part(piece.into, self.place.start)

    @property
    def size(self) -> int:
        return self.place.stop - self.place.start

    def found(self) -> dict[str, bytes]:
        """The digests of its chunks, joined, by tensor; of a part of a share none are known."""
        if self.piece.share is not None:
            return {}
        span = self.piece.span
        start = DIGEST_BYTES * span.first
        stop = None if span.last is None else DIGEST_BYTES * span.last
        tensors = map(self.container.tensors.__getitem__, self.piece.keys)
        return {t.name: self.container.digests_of(t)[start:stop] for t in tensors}


@dataclass(frozen=True, slots=True)
class Assembly:
    """A shard whose pieces are there: files by place, and the digests of all its chunks.

    `rest`: tensors whose digests are still to be made, for their chunks are not those of pieces.
    """

    tensors: tuple[TensorInfo, ...]
    closed: bool
    files: Mapping[Place, File]
    digests: bytes
    rest: tuple[str, ...]


class Pieces:
    """The pieces of one shard as they come.

    Attributes:
        files: by place.
        complete: whether all are there, and none turned out not to fit.
    """

    def __init__(self, tensors: Sequence[TensorInfo], closed: bool) -> None:
        self.tensors, self.closed = tuple(tensors), closed
        self.container = Container()
        for tensor in tensors:
            self.container.place(tensor)
        self.files: dict[Place, File] = {}
        self._waits = 0
        self._rest: dict[str, None] = {}

    def wait(self) -> None:
        self._waits += 1

    @property
    def complete(self) -> bool:
        return self._waits == 0

    def come(
        self,
        piece: Piece,
        made: str | File | None,
        digests: Mapping[str, bytes],
        folder: ShardFolder,
    ) -> None:
        """A piece is there, and kept in a folder for now; None: it does not fit."""
        if made is None:
            return
        part = Path(made) if isinstance(made, str) else made
        folder.hold(part)
        self._waits -= 1
        self.files[place_of(piece, self.container)] = part
        self._rest.update(dict.fromkeys(piece.keys if piece.share is not None else ()))
        for key, values in digests.items():
            self.container.set_digests(key, values, piece.span.first)

    def assembly(self) -> Assembly:
        """What puts them together."""
        digests = self.container.digests
        return Assembly(self.tensors, self.closed, self.files, digests, tuple(self._rest))


class Assembled(NamedTuple):
    """A shard that was put together: its digests, and its name or the path of one that is open."""

    digests: bytes
    made: str | File


def assemble(folder: ShardFolder, work: Assembly) -> Assembled:
    """Put a shard together."""
    sink = ShardSink(folder, work.tensors, closed=work.closed)
    sink.container.digests = work.digests
    if isinstance(folder, StoredShards):
        return _assemble_there(folder, sink, work)
    sink.begin()
    with sink.new.opened() as out:
        for place, path in work.files.items():
            if isinstance(path, RemotePath):
                raise AssertionError(path)
            with NewShard(path, keep=False, there=True).opened() as piece:
                try:
                    out.copy_from(piece.fd, 0, place.stop - place.start, sink.lead + place.start)
                except EOFError:
                    raise InputOutputError(
                        f"{path}: a worker's part of a shard ends early"
                    ) from None
    for tensor in work.tensors:
        if tensor.name in work.rest:
            sink.digest_written(tensor)
    return Assembled(sink.container.digests, sink.finish())


def _assemble_there(folder: StoredShards, sink: ShardSink, work: Assembly) -> Assembled:
    """Have the store put it together: header, pieces, what lies between them, and digests."""
    checks = sink.container.checks(sink.header)
    segments, at = list[Segment]([sink.header]), sink.lead
    for place in sorted(work.files):
        file = work.files[place]
        if isinstance(file, RemotePath):
            gap = bytes(sink.lead + place.start - at)
            segments += [gap, Sent(file, place.start, place.stop - place.start)]
            at = sink.lead + place.stop
    segments.append(bytes(sink.size - len(checks) - at) + checks)
    name = checks[-DIGEST_BYTES:].hex()
    folder.join(name, segments, sink.size)
    return Assembled(sink.container.digests, name)


def _join(opened: object, task: tuple[File, Assembly], progress: Progress) -> Assembled:
    """`assemble`, in a worker."""
    with shard_maker(task[0]) as folder:
        try:
            made = assemble(folder, task[1])
            progress("", sum(place.stop - place.start for place in task[1].files), 0)
            return made
        finally:
            folder.clear()


def join_all(
    cluster: Cluster,
    held: Held[S],
    writer: BankWriter,
    cuts: Mapping[int, Pieces],
    progress: Progress,
) -> None:
    """Have shards put together whose pieces are there; of others all goes."""
    folder, bank = writer.out.folder, absolute(writer.out.path)
    numbers = [number for number, pieces in cuts.items() if pieces.complete]
    tasks = [(bank, cuts[number].assembly()) for number in numbers]
    total = sum(place.stop - place.start for _, one in tasks for place in one.files)
    if tasks:
        made = cluster.map(_join, held, tasks, phase="joining", total=total, progress=progress)
        for at, done in made:
            writer.adopt(numbers[at], done.digests, done.made)
    for pieces in cuts.values():
        for part in pieces.files.values():
            folder.release(part)
