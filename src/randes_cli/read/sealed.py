"""Reading sealed superpositions and shares: back to numbers of steps, checked by chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod

import numpy as np

from randes_cli.core.arrays import F32, Raw
from randes_cli.core.codes import decode
from randes_cli.core.kernel import code_dtype
from randes_cli.core.seal_passes import read
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import scale_key, sum_key
from randes_cli.files.digests import digest
from randes_cli.plan import Rect, chunks, seal_matrix, share_of
from randes_cli.specs import ITEM_SIZE, TensorInfo

#: Called with the digest found, the one recorded and the tensor's key.
Check = Callable[[bytes, bytes, str], None]


class StepsReader:
    """The superpositions of one group that are sealed, or have a share of the elements.

    One object serves all threads. Each chunk is read whole once, to compare its digest; scales
    are kept.
    """

    def __init__(self, bank: BankFile, group: int, check: Check) -> None:
        self._bank, self._group, self._check = bank, group, check
        self._scales: dict[str, tuple[F32, F32]] = {}
        self._sound: set[tuple[str, int]] = set()
        self._lock, self._own = threading.Lock(), threading.local()

    def steps(self, tensor: TensorInfo, start: int, count: int) -> F32:
        """Elements `start` and on of a superposition, in steps. `tensor` is the base's.

        Zeros outside the group's share. Valid until the thread's next call.
        """
        share = share_of(tensor, self._group, self._bank.manifest.shares)
        first, last = share.place(start), share.place(start + count)
        key = sum_key(self._group, tensor.name)
        if self._bank.info(key).dtype == "U8":
            bits, skipped = self._bank.manifest.sealed[self._group].bits, first % 8
            packed, (rows, columns) = self._packed(key, first, last), self.scales(tensor)
            scales = rows, share.table(columns)
            values = self._memory(last - first + skipped)
            read(packed, bits, first - skipped, scales, values)
            found = values[skipped:]
        else:
            found = self._live(key, first, last - first)
        return found if share.every == 1 else share.spread(found, start, count)

    def _memory(self, count: int) -> F32:
        """The thread's own memory for `count` values: new pages cost more than filling them."""
        if len(getattr(self._own, "values", ())) < count:
            self._own.values = np.empty(count, np.float32)
        values: F32 = self._own.values[:count]
        return values

    def levels(self, tensor: TensorInfo) -> F32:
        """A whole sealed superposition before its scales, as stored: a matrix of its share."""
        shape = share_of(tensor, self._group, self._bank.manifest.shares).shape
        return self._decoded(sum_key(self._group, tensor.name), 0, prod(shape)).reshape(shape)

    def _decoded(self, key: str, start: int, count: int) -> F32:
        packed = self._packed(key, start, start + count)
        bits = self._bank.manifest.sealed[self._group].bits
        values = np.empty(len(packed) // bits * 8, np.float32)
        decode(packed, bits, values)
        found: F32 = values[start % 8 :][:count]
        return found

    def _packed(self, key: str, start: int, stop: int) -> Raw:
        """The bytes, checked, that the codes of elements `start` to `stop` lie in."""
        bits = self._bank.manifest.sealed[self._group].bits
        first, last = start // 8, -(-stop // 8)
        self._verify(key, first * bits, last * bits)
        packed = np.empty((last - first) * bits, np.uint8)
        self._bank.read_into(key, first * bits, packed)
        return packed

    def _live(self, key: str, start: int, count: int) -> F32:
        size = ITEM_SIZE[self._bank.info(key).dtype]
        raw = np.empty(count * size, np.uint8)
        for number, rect in enumerate(chunks(*self._bank.info(key).matrix)):
            if rect.start < start + count and start < rect.start + rect.elements:
                self._verify_chunk(key, number, rect)
        self._bank.read_into(key, start * size, raw)
        units: F32 = raw.view(code_dtype(8 * size)).astype(np.float32)
        return units

    def scales(self, tensor: TensorInfo) -> tuple[F32, F32]:
        """The scales of its rows and of its columns."""
        found = self._scales.get(tensor.name)
        if found is None:
            key = scale_key(self._group, tensor.name)
            self._verify(key, 0, self._bank.info(key).elements)
            both = self._bank.read(key).view(np.float16).astype(np.float32)
            if not np.isfinite(both).all():  # forged: no seal has such
                self._check(b"NaN or infinite values", b"", key)
            height = seal_matrix(tensor)[0]
            found = self._scales[tensor.name] = both[:height], both[height:]
        return found

    def _verify(self, key: str, start: int, stop: int) -> None:
        """Check the chunks of codes that bytes `start` to `stop` lie in."""
        for number, rect in enumerate(chunks(*self._bank.info(key).matrix)):
            if rect.start < stop and start < rect.start + rect.elements:
                self._verify_chunk(key, number, rect)

    def _verify_chunk(self, key: str, number: int, rect: Rect) -> None:
        with self._lock:
            if (key, number) in self._sound:
                return
            size = ITEM_SIZE[self._bank.info(key).dtype]
            raw = np.empty(rect.elements * size, np.uint8)
            self._bank.read_into(key, rect.start * size, raw)
            self._check(digest(raw), self._bank.digest(key, number), key)
            self._sound.add((key, number))
