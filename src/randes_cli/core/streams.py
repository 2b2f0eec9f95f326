"""All randomness: a byte stream that is a pure function of a seed and a name."""

from __future__ import annotations

from hashlib import shake_256


def random_bytes(kind: str, seed: int, name: str, count: int) -> bytes:
    """First `count` bytes of SHAKE-256 of ``randes/1|<kind>|<seed>|<name>`` in UTF-8.

    `kind` is ``signs`` (name: the tensor's) or ``shuffle`` (name: the layer type's).
    """
    return shake_256(f"randes/1|{kind}|{seed}|{name}".encode()).digest(count)
