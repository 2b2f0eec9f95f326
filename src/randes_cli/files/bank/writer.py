"""The writer of bank files; `docs/bank-format.md` specifies what it writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.columns import joined
from randes_cli.errors import UsageError
from randes_cli.files.bank.container import FRAME, Container, Due, room_of
from randes_cli.files.bank.entries import METADATA
from randes_cli.files.bank.keys import CHECKS, MANIFEST, parse_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.output import BankOutput, readable, write_index
from randes_cli.files.bank.shard_folder import NewShard
from randes_cli.files.bank.shards import FEATURE, SHARD_METADATA, SHARDS, Layout, part_of, shard_key
from randes_cli.files.bank.store import BankStore
from randes_cli.files.bank.tensor_sink import Data, TensorSink
from randes_cli.files.digests import DIGEST_BYTES
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.location import Place
from randes_cli.limits import MOST_HEADER
from randes_cli.specs import Table, TensorInfo


class _File:
    """One file of the bank: what is in it, and what it is written to.

    Attributes:
        head: bytes before its data; 0 while a shard may still grow.
        header: its first bytes, once nothing more comes into it (not those of an index).
        reused: the old shard that it turned out to be.
        made: its name, where a worker has made it, or it was sent already.
    """

    def __init__(self, head: int = 0) -> None:
        self.container, self.head = Container(), head
        self.header: bytes | None = None
        self.new: NewShard | None = None
        self.reused: str | None = None
        self.made: str | None = None


class BankWriter(TensorSink):
    """Lays out and writes a new bank: into one file, or into shards and their index.

    `room` is the header's in one file. Where shards end follows from the order in which tensors
    are placed; a shard that consists of an old one's tensors, all taken over, is that old one.
    Shards that go elsewhere are sent as soon as they are whole: those of superpositions only if
    `lasting`, where what was written once is not written again.
    """

    def __init__(self, out: BankOutput, room: int, *, lasting: bool = False) -> None:
        self.out, self.room, self._lasting = out, room, lasting
        self._due = Due() if out.folder.sends and out.most is not None else None
        if out.most is None and room - 8 > MOST_HEADER:
            raise UsageError(
                f"{out.path}: a header of {room} bytes, of which safetensors allows "
                f"{MOST_HEADER}; say --max-shard-size, or pack fewer tasks or groups into one bank"
            )
        self._files: list[_File] = [_File(room)] if out.most is None else []
        self._of: dict[str, int] = {}
        self._part, self._filled = "", 0
        self._old: BankStore | None = None
        self._lock = threading.Lock()

    # Laying out

    def place(self, tensor: TensorInfo) -> None:
        if self.out.most is not None:
            self._make_room(tensor, self.out.most)
        self._files[-1].container.place(tensor)
        if self.out.most is None:
            return
        self._of[tensor.name] = len(self._files) - 1
        if self._due is not None:
            self._due.expect(len(self._files) - 1, tensor)

    def place_all(self, tensors: Table) -> None:
        if self.out.most is None:
            self._files[0].container.place_all(tensors)
            return
        for tensor in tensors.values():
            self.place(tensor)

    def _make_room(self, tensor: TensorInfo, most: int) -> None:
        """Begin a shard where another part of the bank begins, or this one would be too large."""
        part, size = part_of(tensor.name), room_of(tensor)
        full = part != self._part or self._filled + size > most
        if not self._files or full or self._files[-1].header is not None:
            self.close_shard()
            self._files.append(_File())
            self._part, self._filled = part, FRAME
        self._filled += size

    def take_over(self, old: BankStore, key: str, *, in_place: bool) -> None:
        """Give a tensor of an old bank the next place; its bytes stay as they are.

        `in_place`: of the bank that this one replaces, whose shards lie where these go.
        """
        self.place(old.header.tensors[key])
        self._old = old if in_place else self._old
        self.container_of(key).set_digests(key, old.digests(key))

    def close_shard(self) -> None:
        """Nothing more comes into the shard at hand."""
        if self.out.most is None or not self._files or self._files[-1].header is not None:
            return
        file = self._files[-1]
        file.container.place_checks()
        file.header = file.container.header(SHARD_METADATA)
        if file.new is None:
            file.head = len(file.header)
            file.reused = self._same_as_old(file)
        stays = self._part.startswith("sum/") and not self._lasting
        if self._due is not None and file.head and file.reused is None and not stays:
            self._due.close(len(self._files) - 1)

    def arrived(self, key: str, chunks: Iterable[int]) -> None:
        """Chunks are written, and their digests are known: a shard that is whole is sent."""
        number = self.number_of(key)
        if self._due is not None and self._due.come(number, key, chunks):
            self._finish_shard(self._files[number], early=True)

    def _same_as_old(self, file: _File) -> str | None:
        """The shard of the bank that this one replaces that is byte for byte this one."""
        name = file.container.checks(file.header or b"")[-DIGEST_BYTES:].hex()
        return name if self._old is not None and name in self._old.shards else None

    @property
    def files(self) -> int:
        """Files that the bank has so far, its index among them."""
        return len(self._files) + (self.out.most is not None)

    def address(self, key: str) -> tuple[int, int]:
        """Where a tensor lies: the number of its file, and the offset among its data."""
        number = self.number_of(key)
        return number, self._files[number].container.start(key)

    def has_bytes(self, key: str) -> bool:
        """Whether a tensor's bytes are there already, in a shard that stays."""
        return self._files[self.number_of(key)].reused is not None

    def set_only_digests(self, keys: Sequence[str], digests: Raw) -> None:
        if self.out.most is None:
            self._files[0].container.set_only_digests(keys, digests)
        else:
            super().set_only_digests(keys, digests)

    def container_of(self, key: str) -> Container:
        return self._files[self.number_of(key)].container

    # What workers elsewhere make

    def number_of(self, key: str) -> int:
        """The number of the file that a tensor is in."""
        return self._of[key] if self.out.most is not None else 0

    def is_here(self, number: int) -> bool:
        """Whether a shard is written by this process alone, for it has begun to."""
        return self._files[number].new is not None

    def contents(self, number: int) -> tuple[list[TensorInfo], bool]:
        """The tensors of a shard, without fillers and digests, and whether more may come."""
        file = self._files[number]
        made = ("align", CHECKS)
        tensors = [t for t in file.container.tensors.values() if parse_key(t.name).kind not in made]
        return tensors, file.header is None

    def adopt(self, number: int, digests: bytes, made: str | Place) -> None:
        """Take a shard that a worker made: its name, or the file of one that may still grow."""
        file = self._files[number]
        file.container.digests = digests
        if isinstance(made, Path):
            file.new = self.out.folder.adopt(made)
        elif isinstance(made, str):
            file.made = made
            self.out.folder.note(made)

    # Writing

    @contextlib.contextmanager
    def file_of(self, key: str) -> Iterator[tuple[OutputFile, int]]:
        file = self._files[self.number_of(key)]
        if self.out.most is None:
            yield self.out.index, file.head + file.container.start(key)
            return
        with self._begun(file).opened() as out:
            yield out, file.head + file.container.start(key)

    @contextlib.contextmanager
    def files_of(self, keys: Sequence[str]) -> Iterator[list[tuple[OutputFile, int]]]:
        if self.out.most is None:
            starts = self.room + self._files[0].container.starts(keys)
            yield list(zip(repeat(self.out.index), starts.tolist()))
            return
        numbers = [self._of[key] for key in keys]
        with contextlib.ExitStack() as opened:
            outs = {}
            for number in dict.fromkeys(numbers):
                outs[number] = opened.enter_context(self._begun(self._files[number]).opened())
            places = ((self._files[n], outs[n], key) for n, key in zip(numbers, keys, strict=True))
            yield [(out, file.head + file.container.start(key)) for file, out, key in places]

    def _begun(self, file: _File) -> NewShard:
        """The temporary file of a shard. One that may still grow has no header yet."""
        if file.new is None:
            with self._lock:
                if file.new is None:
                    file.new = self._create(file)
        return file.new

    def _create(self, file: _File) -> NewShard:
        return self.out.folder.create(file.head + file.container.size)

    def add_whole(self, tensor: TensorInfo, data: Data) -> None:
        """Write a tensor whose data are at hand; where it has no place yet, it gets the next."""
        there = self._of if self.out.most is not None else self._files[0].container
        if tensor.name not in there:
            self.place(tensor)
        self.write_whole(tensor, data)

    # Finishing

    def finish(self, manifest: Manifest) -> int:
        """Write manifest, digests and headers; return the bank's size in bytes.

        What could not be opened again is refused here, by the reader's own checks, before it
        takes a bank's place: UsageError where options or inputs made it so.
        """
        sharded = self.out.most is not None
        if sharded:
            manifest = replace(manifest, features=(*manifest.features, FEATURE))
        text = readable(self.out.path, manifest, self._tensors())
        metadata = {**METADATA, "version": str(manifest.version)}
        if not sharded:
            self.out.complete(())
            parts = [(MANIFEST, text)]
            return write_index(self.out.index, self._files[0].container, parts, metadata, self.room)
        self.close_shard()
        shards, total = {}, 0
        for file in self._files:
            name, table, size = self._finish_shard(file)
            shards[name], total = table, total + size
        self.out.complete(shards)
        parts = [(SHARDS, Layout(self.room, self.out.most or 0).encode())]
        parts += [(shard_key(name), table) for name, table in shards.items()]
        parts.append((MANIFEST, text))
        return total + write_index(self.out.index, Container(), parts, metadata)

    def _tensors(self) -> Table:
        """Those of all files."""
        tables = [file.container.tensors for file in self._files]
        if len(tables) == 1:
            return tables[0]
        return joined(tables, [np.arange(len(table)) for table in tables])

    def _finish_shard(self, file: _File, *, early: bool = False) -> tuple[str, bytes, int]:
        """Name a shard; what the index says of it, and its bytes."""
        header = file.header or b""
        checks = file.container.checks(header)
        name, size = checks[-DIGEST_BYTES:].hex(), len(header) + file.container.size
        if file.made is not None and file.made != name:
            raise AssertionError("a worker made another shard")
        if file.reused is None and file.made is None:
            new = self._begun(file)
            if not file.head:
                new = self._behind_header(new, file, header)
            with new.opened() as out:
                out.write_at(header, 0)
                out.write_at(checks, size - len(checks))
                out.resize(size)
            self.out.folder.publish(new, name, early=early)
            file.made = name
        return name, header + checks, size

    def _behind_header(self, spool: NewShard, file: _File, header: bytes) -> NewShard:
        """The data of a shard that was written before all was known that it holds, moved."""
        file.head = len(header)
        made = self._create(file)
        with spool.opened() as old, made.opened() as out:
            old.resize(file.container.size)
            out.copy_from(old.fd, 0, file.container.size, file.head)
        self.out.folder.drop(spool)
        return made
