"""Reading sealed superpositions: packed codes back to numbers of steps, checked by chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from randes_cli.core.arrays import F32
from randes_cli.core.codes import decode, multiply_scales
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import scale_key, sum_key
from randes_cli.files.digests import digest
from randes_cli.plan import CHUNK_ELEMENTS, seal_matrix
from randes_cli.specs import TensorInfo

#: Called with the digest found, the one recorded and the tensor's key.
Check = Callable[[bytes, bytes, str], None]


class SealedReader:
    """The sealed superpositions of one group. One object serves all threads.

    Each chunk of codes is read whole once, to compare its digest; scales are kept.
    """

    def __init__(self, bank: BankFile, group: int, check: Check) -> None:
        self._bank, self._group, self._check = bank, group, check
        self._bits = bank.manifest.sealed[group].bits
        self._scales: dict[str, tuple[F32, F32]] = {}
        self._sound: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def steps(self, tensor: TensorInfo, start: int, count: int) -> F32:
        """Elements `start` and on of a superposition, in steps. `tensor` is the base's."""
        key, bits = sum_key(self._group, tensor.name), self._bits
        rows, columns = self.scales(tensor)
        first, last = start // 8, -(-(start + count) // 8)
        self._verify(key, first * bits, last * bits)
        packed = np.empty((last - first) * bits, np.uint8)
        self._bank.read_into(key, first * bits, packed)
        values = np.empty((last - first) * 8, np.float32)
        decode(packed, bits, values)
        found = values[start - 8 * first :][:count]
        multiply_scales(found, start, rows, columns)
        return found

    def levels(self, tensor: TensorInfo) -> F32:
        """A whole superposition before its scales, as the matrix that they belong to."""
        key, bits = sum_key(self._group, tensor.name), self._bits
        packed = self._bank.read(key)
        self._verify(key, 0, len(packed))
        values = np.empty(len(packed) // bits * 8, np.float32)
        decode(packed, bits, values)
        return values[: tensor.elements].reshape(seal_matrix(tensor))

    def scales(self, tensor: TensorInfo) -> tuple[F32, F32]:
        """The scales of its rows and of its columns."""
        with self._lock:
            if tensor.name not in self._scales:
                key = scale_key(self._group, tensor.name)
                self._verify_chunks(key, range(len(self._bank.digests(key)) // 16))
                both = self._bank.read(key).view(np.float16).astype(np.float32)
                height = seal_matrix(tensor)[0]
                self._scales[tensor.name] = both[:height], both[height:]
            return self._scales[tensor.name]

    def _verify(self, key: str, start: int, stop: int) -> None:
        needed = range(start // CHUNK_ELEMENTS, (max(start, stop - 1)) // CHUNK_ELEMENTS + 1)
        if all((key, chunk) in self._sound for chunk in needed):
            return
        with self._lock:
            self._verify_chunks(key, needed)

    def _verify_chunks(self, key: str, needed: range) -> None:
        info = self._bank.info(key)
        size = info.nbytes // max(1, info.elements)
        for chunk in needed:
            if (key, chunk) in self._sound:
                continue
            start = chunk * CHUNK_ELEMENTS * size
            raw = np.empty(min(CHUNK_ELEMENTS * size, info.nbytes - start), np.uint8)
            self._bank.read_into(key, start, raw)
            self._check(digest(raw), self._bank.digest(key, chunk), key)
            self._sound.add((key, chunk))
