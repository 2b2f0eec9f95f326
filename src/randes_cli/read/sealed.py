"""Reading sealed superpositions and shares: back to numbers of steps, checked by chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod
from typing import TypeAlias

import numpy as np

from randes_cli.core.arrays import F32, Raw
from randes_cli.core.codes import decode
from randes_cli.core.compiled.back import Codes
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import read
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import scale_key, sum_key
from randes_cli.files.digests import digest
from randes_cli.plan import chunk_grid, seal_matrix, share_of
from randes_cli.specs import ITEM_SIZE, TensorInfo

#: Called with the digest found, the one recorded and the tensor's key.
Check = Callable[[bytes, bytes, str], None]
#: A chunk: its tensor's key and its number.
_Chunk: TypeAlias = tuple[str, int]


class StepsReader:
    """The superpositions of one group that are sealed, or have a share of the elements.

    One object serves all threads. Each chunk is read whole once, to compare its digest; each
    thread's last one is kept, in memory of its own (new pages cost more than filling them), for
    pieces of a tensor end inside it. Scales are kept, too.
    """

    def __init__(self, bank: BankFile, group: int, check: Check) -> None:
        self._bank, self._group, self._check = bank, group, check
        self._scales: dict[str, tuple[F32, F32]] = {}
        self._sound: set[_Chunk] = set()
        self._gates: dict[_Chunk, threading.Lock] = {}
        self._lock, self._own = threading.Lock(), threading.local()

    def steps(self, tensor: TensorInfo, start: int, count: int) -> F32:
        """Elements `start` and on of a superposition, in steps. `tensor` is the base's.

        Zeros outside the group's share. Valid until the thread's next call.
        """
        share = share_of(tensor, self._group, self._bank.manifest.shares)
        first, last = share.place(start), share.place(start + count)
        key = sum_key(self._group, tensor.name)
        if self._bank.info(key).dtype == "U8":
            codes, skipped = self.codes(tensor, first, last - first), first % 8
            rows, columns = codes.scales
            values = self._memory(last - first + skipped)
            read(codes.packed, codes.bits, codes.first, (rows, share.table(columns)), values)
            found = values[skipped:]
        else:
            found = self._live(key, first, last - first)
        return found if share.every == 1 else share.spread(found, start, count)

    def codes(self, tensor: TensorInfo, start: int, count: int) -> Codes:
        """The codes of stored elements `start` and on of a sealed superposition, and its scales.

        Valid until the thread's next call.
        """
        bits, scales = self._bank.manifest.sealed[self._group].bits, self.scales(tensor)
        packed = self._packed(sum_key(self._group, tensor.name), start, start + count, bits)
        return Codes(packed, start // 8 * 8, bits, scales)

    def _memory(self, count: int) -> F32:
        """The thread's own memory for `count` values."""
        if len(getattr(self._own, "values", ())) < count:
            self._own.values = np.empty(count, np.float32)
        values: F32 = self._own.values[:count]
        return values

    def levels(self, tensor: TensorInfo) -> F32:
        """A whole sealed superposition before its scales, as stored: a matrix of its share."""
        shape = share_of(tensor, self._group, self._bank.manifest.shares).shape
        bits = self._bank.manifest.sealed[self._group].bits
        packed = self._packed(sum_key(self._group, tensor.name), 0, prod(shape), bits)
        values = np.empty(len(packed) // bits * 8, np.float32)
        decode(packed, bits, values)
        return values[: prod(shape)].reshape(shape)

    def _packed(self, key: str, start: int, stop: int, bits: int) -> Raw:
        """The bytes, checked, that the codes of elements `start` to `stop` lie in."""
        return self._bytes(key, start // 8 * bits, -(-stop // 8) * bits)

    def _live(self, key: str, start: int, count: int) -> F32:
        size = ITEM_SIZE[self._bank.info(key).dtype]
        raw = self._bytes(key, start * size, (start + count) * size)
        units: F32 = raw.view(code_dtype(8 * size)).astype(np.float32)
        return units

    def scales(self, tensor: TensorInfo) -> tuple[F32, F32]:
        found = self._scales.get(tensor.name)
        if found is None:
            key = scale_key(self._group, tensor.name)
            both = self._bytes(key, 0, self._bank.info(key).nbytes).view(np.float16)
            if not np.isfinite(both).all():  # forged: no seal has such
                self._check(b"NaN or infinite values", b"", key)
            height, wide = seal_matrix(tensor)[0], both.astype(np.float32)
            found = self._scales[tensor.name] = wide[:height], wide[height:]
        return found

    def _bytes(self, key: str, start: int, stop: int) -> Raw:
        info = self._bank.info(key)
        size, parts = ITEM_SIZE[info.dtype], list[Raw]()
        for number, rect in enumerate(chunk_grid(*info.matrix)):
            first, last = rect.start * size, (rect.start + rect.elements) * size
            if first < stop and start < last:
                low, high = max(first, start), min(last, stop)
                part = self._part(key, number, (first, last), (low, high))
                if (low, high) == (start, stop):
                    return part
                parts.append(part.copy())  # the next chunk takes its place
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def _part(self, key: str, number: int, chunk: tuple[int, int], part: tuple[int, int]) -> Raw:
        """Bytes of one chunk; both are (first, after the last) in their tensor."""
        whole = self._whole(key, number, *chunk)
        if whole is not None:
            return whole[part[0] - chunk[0] : part[1] - chunk[0]]
        raw = np.empty(part[1] - part[0], np.uint8)  # it is known to be sound
        self._bank.read_into(key, part[0], raw)
        return raw

    def _whole(self, key: str, number: int, first: int, last: int) -> Raw | None:
        """A chunk that was not checked before, or is kept; None where it was, and is not."""
        chunk, own = (key, number), self._own
        if getattr(own, "chunk", None) == chunk:
            return self._room(last - first)
        with self._lock:
            if chunk in self._sound:
                return None
            gate = self._gates.setdefault(chunk, threading.Lock())
        with gate:
            if chunk in self._sound:  # by another thread, which read it
                return None
            own.chunk, raw = None, self._room(last - first)
            self._bank.read_into(key, first, raw)
            self._check(digest(raw), self._bank.digest(key, number), key)
            own.chunk = chunk
            with self._lock:
                self._sound.add(chunk)
                self._gates.pop(chunk)
        return raw

    def _room(self, size: int) -> Raw:
        """The thread's own memory for a chunk."""
        if len(getattr(self._own, "raw", ())) < size:
            self._own.raw = np.empty(size, np.uint8)
        raw: Raw = self._own.raw[:size]
        return raw
