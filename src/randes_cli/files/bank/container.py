"""One file of a bank under way: tensors end to end, their places and the digests of their chunks.

A bank in one file, the index of a bank in shards, and a shard are all such a file.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.files.bank.keys import CHECKS
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.header import encode_header
from randes_cli.plan import chunks
from randes_cli.specs import ITEM_SIZE, TensorInfo

#: Digits of an offset, and of the two of an entry with the comma between them.
_DIGITS = 19
#: Bytes of a file beside those of its tensors, at the most.
FRAME = 256


class Container:
    """The layout of one file. Offsets count from its first tensor's first byte."""

    def __init__(self) -> None:
        self.tensors: list[TensorInfo] = []
        self.starts: dict[str, int] = {}
        self.size = 0
        self._first: dict[str, int] = {}
        self._digests = bytearray()

    def place(self, tensor: TensorInfo) -> None:
        """Give a tensor the next place, at a multiple of its element's size."""
        gap = -self.size % ITEM_SIZE[tensor.dtype] if tensor.elements else 0
        if gap:
            filler = TensorInfo(f"align/{len(self.tensors)}", "U8", (gap,))
            self._append(filler)
            self.set_digest(filler.name, 0, digest(bytes(gap)))
        self._append(tensor)

    def place_all(self, tensors: Sequence[TensorInfo]) -> None:
        """`place` of tensors in their order: what follows one as wide needs no filler."""
        for _, alike in groupby(tensors, lambda tensor: tensor.dtype):
            some = list(alike)
            first = next((n for n, tensor in enumerate(some) if tensor.elements), len(some))
            for tensor in some[: first + 1]:
                self.place(tensor)
            self._append_all(some[first + 1 :])

    def _append_all(self, tensors: Sequence[TensorInfo]) -> None:
        names = [tensor.name for tensor in tensors]
        sizes = np.array([*map(attrgetter("nbytes"), tensors)], np.int64)
        chunks = np.array([*map(chunk_count, tensors)], np.int64)
        ends, digests = np.cumsum(sizes), DIGEST_BYTES * np.cumsum(chunks)
        first = len(self._digests) + digests - DIGEST_BYTES * chunks
        self.tensors += tensors
        self.starts.update(zip(names, (self.size + ends - sizes).tolist(), strict=True))
        self._first.update(zip(names, first.tolist(), strict=True))
        self.size += int(sizes.sum())
        self._digests += bytes(DIGEST_BYTES * int(chunks.sum()))

    def _append(self, tensor: TensorInfo) -> None:
        self.tensors.append(tensor)
        self.starts[tensor.name] = self.size
        self.size += tensor.nbytes
        if tensor.name != CHECKS:
            self._first[tensor.name] = len(self._digests)
            self._digests += bytes(DIGEST_BYTES * chunk_count(tensor))

    def set_digest(self, key: str, chunk: int, value: bytes) -> None:
        at = self._first[key] + DIGEST_BYTES * chunk
        self._digests[at : at + DIGEST_BYTES] = value

    def set_only_digests(self, keys: Sequence[str], digests: Raw) -> None:
        """Record the digests (n × 16) of tensors of one chunk each."""
        at = np.fromiter(map(self._first.__getitem__, keys), np.intp, len(keys))
        np.frombuffer(self._digests, np.uint8).reshape(-1, DIGEST_BYTES)[at // DIGEST_BYTES] = (
            digests
        )

    def set_digests(self, key: str, values: bytes, first: int = 0) -> None:
        """Record the digests of chunks of a tensor from the first on, joined."""
        at = self._first[key] + DIGEST_BYTES * first
        self._digests[at : at + len(values)] = values

    def digest_whole(self, tensor: TensorInfo, data: bytes | Raw) -> None:
        """Record the digests of a tensor whose data are at hand."""
        size = len(data) // max(1, tensor.elements)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            piece = data[rect.start * size : (rect.start + rect.elements) * size]
            self.set_digest(tensor.name, number, digest(piece))

    def digests_of(self, tensor: TensorInfo) -> bytes:
        at = self._first[tensor.name]
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
