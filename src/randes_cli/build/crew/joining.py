"""Shards put together of the pieces that workers have made: here, or by the store that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from randes_cli.build.crew.pieces import Piece, Place, place_of
from randes_cli.cluster import Cluster, Held
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
from randes_cli.files.stores.segments import Segment, Sent
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Assembly:
    """A shard whose pieces are there: files or data by place, and the digests of all its chunks.

    `rest`: tensors whose digests are still to be made, for their chunks are not those of pieces.
    """

    tensors: tuple[TensorInfo, ...]
    closed: bool
    files: Mapping[Place, File | bytes]
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
        self.files: dict[Place, File | bytes] = {}
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

    def put(self, tensor: TensorInfo, data: bytes) -> None:
        """The data of a tensor that no piece has."""
        start = self.container.start(tensor.name)
        self.files[Place(start, start + len(data))] = data
        self.container.digest_whole(tensor, data)

    def release(self, folder: ShardFolder) -> None:
        """The pieces are not needed any more."""
        for part in self.files.values():
            if not isinstance(part, bytes):
                folder.release(part)

    def assembly(self) -> Assembly:
        """What puts them together."""
        digests = self.container.digests
        return Assembly(self.tensors, self.closed, self.files, digests, tuple(self._rest))


def take_in(
    writer: BankWriter,
    cuts: Mapping[int, Pieces],
    number: int,
    piece: Piece | None,
    made: str | File | None,
    digests: bytes | Mapping[str, bytes],
) -> None:
    """A worker made a shard, or a piece of one; None: its values do not fit."""
    if not isinstance(digests, bytes):
        if piece is not None:
            cuts[number].come(piece, made, digests, writer.out.folder)
    elif made is not None:
        writer.adopt(number, digests, made)


class Assembled(NamedTuple):
    """A shard that was put together: its digests, and its name or the path of one that is open."""

    digests: bytes
    made: str | File


def assemble(folder: ShardFolder, work: Assembly) -> Assembled:
    sink = ShardSink(folder, work.tensors, closed=work.closed)
    sink.container.digests = work.digests
    if isinstance(folder, StoredShards):
        return _assemble_there(folder, sink, work)
    sink.begin()
    with sink.new.opened() as out:
        for place, path in work.files.items():
            if isinstance(path, bytes):
                out.write_at(path, sink.lead + place.start)
                continue
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
        file, gap = work.files[place], bytes(sink.lead + place.start - at)
        if isinstance(file, bytes):
            segments += [gap, file]
        elif isinstance(file, RemotePath):
            segments += [gap, Sent(file, place.start, place.stop - place.start)]
        at = sink.lead + place.stop
    segments.append(bytes(sink.size - len(checks) - at) + checks)
    name = checks[-DIGEST_BYTES:].hex()
    folder.join(name, segments, sink.size)
    return Assembled(sink.container.digests, name)


def _join(opened: object, task: tuple[File, Assembly], progress: Progress) -> Assembled:
    """`assemble`, in a worker."""
    with shard_maker(task[0]) as folder:
        made = assemble(folder, task[1])
        progress("", sum(place.stop - place.start for place in task[1].files), 0)
        return made


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
        pieces.release(folder)
