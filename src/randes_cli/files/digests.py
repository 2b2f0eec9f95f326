"""Digests: XXH3-128 per chunk, and fingerprints of a checkpoint's content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from math import prod
from typing import NamedTuple

import numpy as np
import xxhash

from randes_cli.core.arrays import I64, Raw
from randes_cli.core.columns import columns
from randes_cli.plan import CHUNK_ELEMENTS, chunks
from randes_cli.specs import ITEM_SIZE, Table, TensorInfo

DIGEST_BYTES = 16
#: Tensors that a fingerprint takes in together.
_TOGETHER = 2**12


def hasher() -> xxhash.xxh3_128:
    """A running XXH3-128 with seed 0; its digest is the canonical (big-endian) 16 bytes."""
    return xxhash.xxh3_128()


def digest(data: object) -> bytes:
    """XXH3-128 of a bytes-like object."""
    return xxhash.xxh3_128_digest(data)  # type: ignore[arg-type]


def each_digest(digests: Raw) -> list[bytes]:
    """Those that are n × 16 bytes, one by one."""
    whole = digests.tobytes()
    return [whole[at : at + DIGEST_BYTES] for at in range(0, len(whole), DIGEST_BYTES)]


def chunk_count(tensor: TensorInfo) -> int:
    """Number of chunks, and so of digests, of a tensor (`plan.chunks` lists them)."""
    return _chunk_count(tensor.shape)


@lru_cache(maxsize=2**12)
def _chunk_count(shape: tuple[int, ...]) -> int:
    """Models have many tensors of few shapes."""
    elements = prod(shape)
    if elements <= CHUNK_ELEMENTS:
        return min(1, elements)
    rows, cols = TensorInfo("", "U8", shape).matrix
    if cols > CHUNK_ELEMENTS:
        return rows * -(-cols // CHUNK_ELEMENTS)
    return -(-rows // (CHUNK_ELEMENTS // cols))


def zero_digests(tensors: Mapping[str, TensorInfo]) -> dict[str, bytes]:
    """Each tensor's chunk digests, joined, where all its bytes are zero."""

    @lru_cache
    def zeros(size: int) -> bytes:
        return digest(bytes(size))

    return {
        name: b"".join(
            zeros(rect.elements * ITEM_SIZE[tensor.dtype]) for rect in chunks(*tensor.matrix)
        )
        for name, tensor in tensors.items()
    }


class Framed(NamedTuple):
    """What a fingerprint is of, where in it the digests go, and the order of its tensors."""

    text: Raw
    holes: I64
    order: I64


class SmallDigests(Mapping[str, bytes]):
    """The digests of a table's tensors, of one chunk each: n × 16 bytes in its order.

    `frames` keeps what the fingerprints of checkpoints with one table have in common.
    """

    def __init__(self, tensors: Table, rows: Raw, frames: dict[int, Framed]) -> None:
        self.tensors, self.rows, self._frames = tensors, rows, frames

    def __getitem__(self, name: str) -> bytes:
        return bytes(self.rows[self.tensors.numbers[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def fingerprint(self) -> str:
        """See `fingerprint`: the digests are filled in."""
        key = id(self.tensors)
        if key not in self._frames:
            self._frames[key] = _framed(self.tensors)
        text, holes, order = self._frames[key]
        made = text.copy()
        made[holes[:, None] + np.arange(DIGEST_BYTES)] = self.rows[order]
        return xxhash.xxh3_128_hexdigest(made.data)


def _framed(tensors: Table) -> Framed:
    kinds, found = columns(tensors).kind_of.tolist(), columns(tensors)
    frames = [_frame((kind.dtype, kind.shape)) + bytes(DIGEST_BYTES) for kind in found.kinds]
    order = sorted(range(len(found.names)), key=found.names.__getitem__)
    pieces = [found.names[at].encode() + frames[kinds[at]] for at in order]
    ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
    text = np.frombuffer(b"".join(pieces), np.uint8)
    return Framed(text, ends - DIGEST_BYTES, np.array(order, np.int64))


def fingerprint(tensors: Mapping[str, TensorInfo], digests: Mapping[str, bytes]) -> str:
    """32 hexadecimal digits that depend on names, dtypes, shapes and values alone.

    XXH3-128 over the tensors in the order of their names (by code point), each as its name,
    a zero byte, dtype, a zero byte, dimensions joined by commas, a zero byte, chunk digests.
    """
    if isinstance(digests, SmallDigests) and digests.tensors is tensors:
        return digests.fingerprint()
    whole, ordered = hasher(), sorted(tensors)
    for first in range(0, len(ordered), _TOGETHER):
        some = ordered[first : first + _TOGETHER]
        pieces = ((name.encode(), _frame(tensors[name][1:]), digests[name]) for name in some)
        whole.update(b"".join(chain.from_iterable(pieces)))
    return whole.hexdigest()


@lru_cache(maxsize=2**12)
def _frame(kind: tuple[str, tuple[int, ...]]) -> bytes:
    """What stands between a name and its digests."""
    dtype, shape = kind
    return f"\0{dtype}\0{','.join(map(str, shape))}\0".encode()
