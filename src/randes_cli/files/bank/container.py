"""One file of a bank under way: tensors end to end, their places and the digests of their chunks.

A bank in one file, the index of a bank in shards, and a shard are all such a file.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import count as count_from
from operator import attrgetter

import numpy as np

from randes_cli.core.arrays import I64, Raw, firsts
from randes_cli.core.columns import Columns, columns, table_of
from randes_cli.files.bank.keys import CHECKS
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.json_text import encode_header
from randes_cli.plan import chunks
from randes_cli.specs import ITEM_SIZE, Kind, Table, TensorInfo

#: Digits of an offset, and of the two of an entry with the comma between them.
_DIGITS = 19
#: Bytes of a file beside those of its tensors, at the most.
FRAME = 256


class Container:
    """The layout of one file, as columns. Offsets count from its first tensor's first byte."""

    def __init__(self) -> None:
        self.size = 0
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._kinds: dict[Kind, int] = {}
        self._kind_of, self._starts, self._firsts = array("q"), array("q"), array("q")
        self._digests = bytearray()
        self._asked: tuple[Sequence[str], I64] | None = None

    @property
    def tensors(self) -> Table:
        """What is placed, in the order of the file: of use until more is placed."""
        kind_of = np.array(self._kind_of, np.int64)
        return table_of(self._names, list(self._kinds), kind_of, self._numbers)

    def __contains__(self, key: str) -> bool:
        return key in self._numbers

    def place(self, tensor: TensorInfo) -> None:
        """Give a tensor the next place, at a multiple of its element's size."""
        gap = -self.size % ITEM_SIZE[tensor.dtype] if tensor.elements else 0
        if gap:
            filler = TensorInfo(f"align/{len(self._names)}", "U8", (gap,))
            self._append(filler)
            self.set_digests(filler.name, digest(bytes(gap)))
        self._append(tensor)

    def place_all(self, tensors: Table) -> None:
        """`place` of tensors in their order: what follows one as wide needs no filler."""
        found, dtypes = columns(tensors), dict[str, int]()
        dtype_of = found.of(lambda kind: dtypes.setdefault(kind.dtype, len(dtypes)))
        elements = found.of(attrgetter("elements"))
        starts = firsts(dtype_of)
        for rows in np.split(np.arange(len(tensors)), starts[1:]):
            there = np.flatnonzero(elements[rows]).tolist()
            alone = rows[: (there[0] if there else len(rows)) + 1]
            for row in alone.tolist():
                self.place(found.kinds[found.kind_of[row]]._replace(name=found.names[row]))
            self._append_all(found, rows[len(alone) :])

    def _append_all(self, found: Columns, rows: I64) -> None:
        names = list(map(found.names.__getitem__, rows.tolist()))
        kinds = [self._kinds.setdefault(t[1:], len(self._kinds)) for t in found.kinds]
        sizes, count = found.of(attrgetter("nbytes"))[rows], found.of(chunk_count)[rows]
        ends, digests = np.cumsum(sizes), DIGEST_BYTES * np.cumsum(count)
        first = len(self._digests) + digests - DIGEST_BYTES * count
        self._numbers.update(zip(names, count_from(len(self._names)), strict=False))
        self._names += names
        self._kind_of.frombytes(np.array(kinds, np.int64)[found.kind_of[rows]].tobytes())
        self._starts.frombytes((self.size + ends - sizes).astype(np.int64).tobytes())
        self._firsts.frombytes(first.astype(np.int64).tobytes())
        self.size += int(sizes.sum())
        self._digests += bytes(DIGEST_BYTES * int(count.sum()))

    def _append(self, tensor: TensorInfo) -> None:
        self._numbers[tensor.name] = len(self._names)
        self._names.append(tensor.name)
        self._kind_of.append(self._kinds.setdefault(tensor[1:], len(self._kinds)))
        self._starts.append(self.size)
        self._firsts.append(len(self._digests))
        self.size += tensor.nbytes
        if tensor.name != CHECKS:
            self._digests += bytes(DIGEST_BYTES * chunk_count(tensor))

    def start(self, key: str) -> int:
        """Offset of a tensor's first byte."""
        return self._starts[self._numbers[key]]

    def starts(self, keys: Sequence[str]) -> I64:
        return np.array(self._starts, np.int64)[self._rows(keys)]

    def _rows(self, keys: Sequence[str]) -> I64:
        """The numbers of tensors; whoever has asked for their places then has their digests."""
        known = self._asked
        if known is None or known[0] is not keys:
            rows = np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))
            self._asked = known = keys, rows
        return known[1]

    def set_only_digests(self, keys: Sequence[str], digests: Raw) -> None:
        """Record the digests (n × 16) of tensors of one chunk each."""
        at = np.array(self._firsts, np.int64)[self._rows(keys)] // DIGEST_BYTES
        np.frombuffer(self._digests, np.uint8).reshape(-1, DIGEST_BYTES)[at] = digests

    def set_digests(self, key: str, values: bytes, first: int = 0) -> None:
        """Record the digests of chunks of a tensor from the first on, joined."""
        at = self._firsts[self._numbers[key]] + DIGEST_BYTES * first
        self._digests[at : at + len(values)] = values

    def digest_whole(self, tensor: TensorInfo, data: bytes | Raw) -> None:
        """Record the digests of a tensor whose data are at hand."""
        size = len(data) // max(1, tensor.elements)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            piece = data[rect.start * size : (rect.start + rect.elements) * size]
            self.set_digests(tensor.name, digest(piece), number)

    def digests_of(self, tensor: TensorInfo) -> bytes:
        at = self._firsts[self._numbers[tensor.name]]
        return bytes(self._digests[at : at + DIGEST_BYTES * chunk_count(tensor)])

    @property
    def digests(self) -> bytes:
        return bytes(self._digests)

    @digests.setter
    def digests(self, values: bytes) -> None:
        self._digests[:] = values

    def place_checks(self) -> None:
        """Place the table of digests: the last tensor."""
        self.place(TensorInfo(CHECKS, "U8", (2 * DIGEST_BYTES + len(self._digests),)))

    def header(self, metadata: Mapping[str, str], *, size: int | None = None) -> bytes:
        """The bytes before the data: `size`, or no more than are needed."""
        return encode_header(self.tensors, metadata, length=None if size is None else size - 8)

    def checks(self, header: bytes) -> bytes:
        """The bytes of the table of digests."""
        content = digest(header) + self._digests
        return content + digest(content)


def room_of(tensor: TensorInfo) -> int:
    """Bytes that a tensor takes in a file, at the most: data, header entry, digests, a filler."""
    shape = ",".join(map(str, tensor.shape))
    text = f'{json.dumps(tensor.name, ensure_ascii=False)}:{{"dtype":"{tensor.dtype}","shape":['
    entry = len(text.encode()) + len(shape) + len('],"data_offsets":[,]},') + 2 * _DIGITS
    return tensor.nbytes + entry + DIGEST_BYTES * chunk_count(tensor) + 2**7


class Due:
    """What is to come, by shard and tensor. Calls may come from several threads."""

    def __init__(self) -> None:
        self._chunks: dict[int, dict[str, set[int]]] = {}
        self._closed: set[int] = set()
        self._lock = threading.Lock()

    def expect(self, shard: int, tensor: TensorInfo) -> None:
        """A shard waits for a tensor."""
        with self._lock:
            chunks = set(range(chunk_count(tensor)))
            self._chunks.setdefault(shard, {}).update({tensor.name: chunks} if chunks else {})

    def close(self, shard: int) -> None:
        """A shard waits for no more than it does now."""
        with self._lock:
            self._closed.add(shard)

    def come(self, shard: int, key: str, chunks: Iterable[int]) -> bool:
        """Chunks are there; whether a closed shard is whole with them, said once."""
        with self._lock:
            waits = self._chunks.get(shard, {})
            waits.get(key, set()).difference_update(chunks)
            if waits.get(key) == set():
                del waits[key]
            whole = not waits and shard in self._closed
            if whole:
                self._closed.discard(shard)
            return whole
