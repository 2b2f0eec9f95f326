"""All randomness: a byte stream that is a pure function of a seed and a name."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import shake_256


def random_many(kind: str, seed: int, names: Iterable[str], counts: Iterable[int]) -> list[bytes]:
    """`random_bytes` of many names, of each so many."""
    start = f"randes/1|{kind}|{seed}|"
    return [
        shake_256((start + name).encode()).digest(count) if count else b""
        for name, count in zip(names, counts)  # noqa: B905 - counts may be endless
    ]


def random_bytes(kind: str, seed: int, name: str, count: int) -> bytes:
    """First `count` bytes of SHAKE-256 of ``randes/1|<kind>|<seed>|<name>`` in UTF-8.

    `kind` is ``signs`` (name: the tensor's) or ``shuffle`` (name: the layer type's).
    """
    return shake_256(f"randes/1|{kind}|{seed}|{name}".encode()).digest(count)
