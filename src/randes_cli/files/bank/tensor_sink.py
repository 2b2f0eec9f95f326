"""Where tensors of a bank under way are written: all of it, or one shard in a worker."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.shard_folder import NewShard, ShardFolder
from randes_cli.files.bank.shards import SHARD_METADATA
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest, each_digest
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.location import Place
from randes_cli.files.stores.segments import Part
from randes_cli.plan import chunks
from randes_cli.specs import TensorInfo


class Data(Protocol):
    """Bytes, or what makes them."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, part: slice, /) -> bytes | Raw:
        """Some of them."""


class TensorSink(ABC):
    """What jobs need of a bank under way. Calls may come from several threads."""

    @abstractmethod
    def has_bytes(self, key: str) -> bool:
        """Whether a tensor's bytes are there already."""

    @abstractmethod
    def file_of(self, key: str) -> AbstractContextManager[tuple[OutputFile, int]]:
        """The file that a tensor is written to, and the offset of its first byte there."""

    @abstractmethod
    def files_of(self, keys: Sequence[str]) -> AbstractContextManager[list[tuple[OutputFile, int]]]:
        """`file_of` of several tensors, whose files stay open together."""

    @abstractmethod
    def container_of(self, key: str) -> Container:
        """The layout of the file that a tensor is in."""

    def write(self, key: str, start: int, data: object) -> None:
        """Write bytes of a placed tensor from byte `start` of its data."""
        with self.file_of(key) as (out, offset):
            out.write_at(data, offset + start)

    def write_whole(self, tensor: TensorInfo, data: Data) -> None:
        """Write a placed tensor whose data are at hand, or made as they are asked for."""
        size, container = len(data) // max(1, tensor.elements), self.container_of(tensor.name)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            start = rect.start * size
            piece = data[start : start + rect.elements * size]
            self.write(tensor.name, start, piece)
            container.set_digests(tensor.name, digest(piece), number)
        self.arrived(tensor.name, range(chunk_count(tensor)))

    def read(self, key: str, start: int, out: Raw) -> None:
        """Fill `out` with bytes of a tensor that were written."""
        with self.file_of(key) as (file, offset):
            file.read_at(out, offset + start)

    def digest_written(self, tensor: TensorInfo) -> None:
        """Record the digests of a tensor whose data were written, and are read again for it."""
        size = tensor.nbytes // max(1, tensor.elements)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            raw = np.empty(rect.elements * size, np.uint8)
            self.read(tensor.name, rect.start * size, raw)
            self.set_digest(tensor.name, number, digest(raw))

    def set_digest(self, key: str, chunk: int, value: bytes) -> None:
        self.container_of(key).set_digests(key, value, chunk)
        self.arrived(key, (chunk,))

    def set_only_digests(self, keys: Sequence[str], digests: Raw) -> None:
        """Record the digests (n × 16) of tensors of one chunk each."""
        for key, value in zip(keys, each_digest(digests), strict=True):
            self.set_digest(key, 0, value)

    @abstractmethod
    def arrived(self, key: str, chunks: Iterable[int]) -> None:
        """Chunks are written, and their digests are known."""


class ShardSink(TensorSink):
    """One shard, made by whoever has all of its tensors.

    `closed`: nothing more comes into it, so that it can be finished.
    """

    def __init__(self, folder: ShardFolder, tensors: Sequence[TensorInfo], *, closed: bool) -> None:
        self.folder, self.container = folder, Container()
        for tensor in tensors:
            self.container.place(tensor)
        self.header = b""
        if closed:
            self.container.place_checks()
            self.header = self.container.header(SHARD_METADATA)
        #: Offset in its file of what is first in the shard.
        self.lead = len(self.header)
        self._new: NewShard | None = None
        #: What it is called where it is a part of a shard.
        self.part: Part | None = None

    @property
    def size(self) -> int:
        return self.lead + self.container.size

    def begin(self) -> None:
        """Make its file."""
        self._new = self.folder.create(self.size)

    @property
    def new(self) -> NewShard:
        if self._new is None:
            raise AssertionError("a shard that was not begun")
        return self._new

    def address(self, key: str) -> tuple[int, int]:
        """The number of its only file, and a tensor's offset among its data."""
        return 0, self.container.start(key)

    def has_bytes(self, key: str) -> bool:
        """None is: it is made anew."""
        return False

    def arrived(self, key: str, chunks: Iterable[int]) -> None:
        """Nobody waits for them: the shard is finished when its worker has done."""

    def container_of(self, key: str) -> Container:
        return self.container

    @contextlib.contextmanager
    def file_of(self, key: str) -> Iterator[tuple[OutputFile, int]]:
        with self.new.opened() as out:
            yield out, self.lead + self.container.start(key)

    @contextlib.contextmanager
    def files_of(self, keys: Sequence[str]) -> Iterator[list[tuple[OutputFile, int]]]:
        with self.new.opened() as out:
            yield [(out, self.lead + start) for start in self.container.starts(keys).tolist()]

    def found(self) -> bytes | dict[str, bytes]:
        """The digests of its chunks, joined."""
        return self.container.digests

    def finish(self) -> str | Place:
        """Put the shard under its name; one that may still grow stays as it is, at this path."""
        if not self.header:
            return self.folder.leave(self.new, self.part)
        checks = self.container.checks(self.header)
        name = checks[-DIGEST_BYTES:].hex()
        with self.new.opened() as out:
            out.write_at(self.header, 0)
            out.write_at(checks, self.size - len(checks))
        self.folder.publish(self.new, name)
        return name
