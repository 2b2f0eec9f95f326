"""Chunks that the shards of a bank under way still wait for."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from randes_cli.files.digests import chunk_count
from randes_cli.specs import TensorInfo


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
