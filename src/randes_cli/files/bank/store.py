"""Where the bytes of a bank lie: in one file, or in an index and the shards that it names.

Nothing above asks how many files there are: tensors and digests are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from randes_cli.core.arrays import I64, Raw
from randes_cli.core.columns import columns, joined
from randes_cli.errors import BankDamaged, CheckpointError
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.keys import CHECKS, MANIFEST
from randes_cli.files.bank.shard_files import OpenShard, ShardFile, problem_of
from randes_cli.files.bank.shards import (
    FEATURE,
    SHARDS,
    Contents,
    Layout,
    read_shard,
    shard_file,
    shard_key,
)
from randes_cli.files.digests import DIGEST_BYTES, digest
from randes_cli.files.weight_file import WeightFile
from randes_cli.limits import MOST_MANIFEST
from randes_cli.plan import chunks
from randes_cli.specs import TensorInfo

#: Bytes that the feature takes in a manifest: what the same bank in one file has not.
_FEATURE_BYTES = len(f'"{FEATURE}",')


class BankStore:
    """The tensors of a bank and their digests, wherever they lie.

    Attributes:
        header: of the bank as a whole: tensors in their order. Its offsets are those of files.
        layout: how a bank in shards was cut; None for one file.
        shards: what each shard holds, by name, in order; empty for one file.
    """

    def __init__(self, file: WeightFile) -> None:
        self.file = file
        self.header = file.header
        self.layout: Layout | None = None
        self.shards: dict[str, Contents] = {}
        self._opened: list[ShardFile] = []
        self._contents = [self._read_contents()]
        self._file_of: I64 | None = None  # the number of each tensor's file
        if SHARDS in file.header.tensors:
            self._read_shards()

    # Opening

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process, where the file was opened again. Raises BankDamaged."""
        self.__dict__.update(state)
        last = np.empty(DIGEST_BYTES, np.uint8)
        header = self._contents[0].header
        if self.file.header.file_size == header.file_size:
            self._read_file(header.file_size - DIGEST_BYTES, last)
        if last.tobytes() != self.fingerprint:
            raise BankDamaged(f"{self.file.path}: another bank than was opened; open it again")

    def _read_contents(self) -> Contents:
        header, tensors = self.file.header, self.file.header.tensors
        for name in (MANIFEST, CHECKS):
            found = tensors.get(name)
            if found is None or found.dtype != "U8" or len(found.shape) != 1:
                raise BankDamaged(f"no {name} tensor of bytes")
        if tensors[MANIFEST].elements > MOST_MANIFEST:
            raise BankDamaged(f"its manifest is larger than {MOST_MANIFEST} bytes")
        if tensors[CHECKS].elements > header.file_size:
            raise BankDamaged("checks has a wrong length")
        checks = np.empty(tensors[CHECKS].elements, np.uint8)
        self._read_file(header.start(CHECKS), checks)
        head = np.empty(header.size, np.uint8)
        self._read_file(0, head)
        return replace(Contents.of(head.data, header, checks.tobytes()), head=b"")

    def _read_shards(self) -> None:
        """Read what the index says of its shards; none is opened."""
        index = self.header.tensors
        self.layout = Layout.decode(self.checked(SHARDS))
        for key in index:
            if key.startswith(shard_key("")):
                made = read_shard(key, self.checked(key))
                self.shards[key.removeprefix(shard_key(""))] = made
                self._contents.append(made)
        known = {SHARDS, MANIFEST, CHECKS, *map(shard_key, self.shards)}
        strange = next((key for key in index if key not in known), None)
        if strange is not None:
            raise BankDamaged(f"tensor {strange[:200]!r} has no place in an index of shards")
        self._join([*self._contents[1:], self._contents[0]])

    def _join(self, files: Sequence[Contents]) -> None:
        """One header of what the shards and the index hold."""
        rows = [contents.content for contents in files]
        rows[-1] = columns(files[-1].header.tensors).at([MANIFEST, CHECKS])
        made = joined([one.header.tensors for one in files], rows)
        if len(made.numbers) < len(made):
            twice = next(n for n, name in enumerate(made.names) if made.numbers[name] != n)
            raise BankDamaged(f"tensor {made.names[twice][:200]!r} is in two shards")
        pairs = list(zip(files, rows, strict=True))
        offsets = np.concatenate([one.header.offsets[some] for one, some in pairs])
        self._file_of = np.repeat([*range(1, len(files)), 0], [len(some) for some in rows])
        self.header = replace(self.header, tensors=made, offsets=offsets)

    def open_shards(self, open_shard: OpenShard) -> None:
        """Open every shard, or what answers for it when it is read."""
        for name, contents in self.shards.items():
            self._opened.append(open_shard(name, contents.header.file_size))

    @property
    def problems(self) -> dict[str, Exception]:
        """Why shards cannot be read, by file name: of those of which that is known."""
        pairs = zip(self.shards, self._opened, strict=True)
        found = ((shard_file(name), problem_of(shard)) for name, shard in pairs)
        return {name: problem for name, problem in found if problem is not None}

    # Reading

    @property
    def size(self) -> int:
        return sum(one.header.file_size for one in self._contents)

    def written(self) -> bool:
        """Whether somebody wrote to a file of it here, in place, since it was opened."""
        known = (getattr(file, "written", None) for file in (self.file, *self._opened))
        return any(written() for written in known if written is not None)

    @property
    def fingerprint(self) -> bytes:
        """The digest of the table of digests, which every byte of the bank has a part in."""
        return self._contents[0].checks[-DIGEST_BYTES:]

    @property
    def overhead(self) -> int:
        """Bytes that opening the bank checked: headers and what only the index has."""
        if not self.shards:
            return self.header.size + self.header.tensors[CHECKS].nbytes
        return self.file.header.file_size - self.header.tensors[MANIFEST].nbytes

    def shard_of(self, key: str) -> str | None:
        """The file name of the shard that a tensor is in; None where it is in the one file."""
        number = self._number(key)
        return shard_file(list(self.shards)[number - 1]) if number else None

    def _number(self, key: str) -> int:
        """The number of the file that a tensor is in; 0 is the index, or the one file."""
        row = None if self._file_of is None else self.header.tensors.numbers.get(key)
        return 0 if row is None or self._file_of is None else int(self._file_of[row])

    def address(self, key: str) -> tuple[int, int]:
        """Where a tensor lies: the number of its file, and the offset there."""
        return self._number(key), self.header.start(key)

    def places(self, keys: Sequence[str]) -> tuple[I64, I64]:
        """The same of many."""
        rows = columns(self.header.tensors).at(keys)
        offsets = self.header.offsets[rows]
        return (np.zeros_like(rows) if self._file_of is None else self._file_of[rows]), offsets

    def read_into(self, key: str, start: int, out: Raw) -> None:
        """Fill `out` with a tensor's bytes from byte `start` of its data, unchecked."""
        number, offset = self.address(key)
        if number:
            self.read_shard(number - 1, offset + start, out)
        else:
            self._read_file(offset + start, out)

    def read_shard(self, number: int, offset: int, out: Raw) -> None:
        try:
            self._opened[number].read_at(offset, out)
        except CheckpointError as error:
            raise BankDamaged(f"{error} (restore a copy)") from error

    def _read_file(self, offset: int, out: Raw) -> None:
        try:
            self.file.read_at(offset, out)
        except CheckpointError as error:
            raise BankDamaged(f"{error} (restore a copy)") from error

    # Digests

    def digests(self, key: str) -> bytes:
        """The recorded digests of a tensor's chunks, joined."""
        return self._contents[self._number(key)].digests(key)

    def only_digests(self, keys: Sequence[str]) -> bytes:
        """The recorded digests of tensors of one file that have one chunk each, joined."""
        contents = self._contents[self._number(keys[0])]
        first = contents.first[columns(contents.header.tensors).at(keys)]
        if (np.diff(first) == DIGEST_BYTES).all():
            return contents.checks[int(first[0]) : int(first[-1]) + DIGEST_BYTES]
        return b"".join(contents.checks[at : at + DIGEST_BYTES] for at in first.tolist())

    def digest(self, key: str, chunk: int) -> bytes:
        contents = self._contents[self._number(key)]
        first = int(contents.first[contents.header.tensors.numbers[key]])
        start = first + DIGEST_BYTES * chunk
        return contents.checks[start : start + DIGEST_BYTES]

    def checked(self, key: str) -> bytes:
        """All bytes of a tensor. Raises BankDamaged where they are not those written."""
        number = self._number(key)
        contents = self._contents[number]
        tensor = contents.header.tensors[key]
        data = np.empty(tensor.nbytes, np.uint8)
        if number:
            self.read_into(key, 0, data)
        else:
            self._read_file(contents.header.start(key), data)
        if not is_sound(data, tensor, contents.digests(key)):
            raise BankDamaged(f"tensor {key!r} is damaged")
        return data.tobytes()

    # As one file

    def as_single(self) -> list[TensorInfo]:
        """Its tensors as the same bank in one file has them, fillers and all."""
        if self.layout is None:
            return list(self.header.tensors.values())
        made = Container()
        for tensor in self.header.tensors.values():
            if tensor.name == MANIFEST:
                made.place(TensorInfo(MANIFEST, "U8", (tensor.nbytes - _FEATURE_BYTES,)))
            elif tensor.name != CHECKS:
                made.place(tensor)
        made.place_checks()
        return list(made.tensors.values())

    def close(self) -> None:
        self.file.close()
        for shard in self._opened:
            shard.close()


def is_sound(data: Raw, tensor: TensorInfo, digests: bytes) -> bool:
    """Whether a tensor's bytes have these digests, chunk by chunk."""
    size = tensor.nbytes // max(1, tensor.elements)
    return all(
        digest(data[rect.start * size : (rect.start + rect.elements) * size])
        == digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)]
        for number, rect in enumerate(chunks(*tensor.matrix))
    )


def open_store(
    open_file: Callable[[], WeightFile],
    open_shard: OpenShard,
    is_current: Callable[[WeightFile], bool],
) -> BankStore:
    """Open a bank's files. An edit between the index and its shards makes it begin again.

    Raises BankDamaged, and what opening the file raises.
    """
    while True:
        file = open_file()
        try:
            made = BankStore(file)
            made.open_shards(open_shard)
            if not made.problems or is_current(file):
                return made
            made.close()
        except BaseException:
            file.close()
            raise
