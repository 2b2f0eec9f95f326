"""Work on one shard for several workers: runs of its tensors, or of the chunks of one.

A worker writes its run into a file of its own; when all runs of a shard are there, their bytes are
put together behind its header. Where runs end follows from sizes and the number of workers, and
leaves no trace in the shard.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from randes_cli.core.share import Share
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.shard_folder import ShardFolder
from randes_cli.files.bank.tensor_sink import ShardSink
from randes_cli.files.digests import DIGEST_BYTES
from randes_cli.files.location import Place as File
from randes_cli.files.location import RemotePath
from randes_cli.files.stores.parts import JOINING
from randes_cli.files.stores.segments import Part
from randes_cli.plan import WHOLE, Span, chunks
from randes_cli.specs import TensorInfo

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
    total, most = sum(item.nbytes for item in items), least(most, bank)
    apart = isinstance(bank, Path) or bank.scheme in JOINING
    if not apart or total <= 2 * most:
        return [None]
    return [*new_pieces(cut(items, most), bank)]


def least(most: int, bank: File) -> int:
    """Bytes of a piece about, where so many were enough on a shared disk."""
    return max(most, _LEAST_SENT) if isinstance(bank, RemotePath) else most


def new_pieces(pieces: Sequence[Piece], bank: File) -> list[Piece]:
    """The pieces of one shard, under a name of their own where they are sent."""
    into = os.urandom(8).hex() if isinstance(bank, RemotePath) else ""
    return [piece._replace(into=into) for piece in pieces]


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
        """By tensor; of a part of a share none are known."""
        if self.piece.share is not None:
            return {}
        span = self.piece.span
        start = DIGEST_BYTES * span.first
        stop = None if span.last is None else DIGEST_BYTES * span.last
        tensors = map(self.container.tensors.__getitem__, self.piece.keys)
        return {t.name: self.container.digests_of(t)[start:stop] for t in tensors}


def sink_for(
    folder: ShardFolder, tensors: Sequence[TensorInfo], piece: Piece | None, *, closed: bool
) -> ShardSink:
    """A sink for a shard, or for a piece of it."""
    if piece is not None:
        return PieceSink(folder, tensors, piece)
    return ShardSink(folder, tensors, closed=closed)
