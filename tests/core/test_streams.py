"""The byte streams: golden vectors that no version may change."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.signs import random_bytes, random_joined

VECTORS = [
    ("signs", 42, "layers.0.weight", "dd0ee5c0b73b34ca2b9e1e734557b9d4"),
    ("signs", 43, "layers.0.weight", "7f8bc2f5dc1f2556d028edae9a5f82ff"),
    ("signs", 42, "layers.1.weight", "04d053580c21474a49938294fc4ff9da"),
    ("shuffle", 42, "layers.*.weight", "f08576c717dd55e7e75162545447a054"),
    ("signs", 0, "größe", "63a7fb3b027bdc85fc5ca61bdb17e8b8"),
    ("signs", 2**63 + 7, "w", "b53eef3b23fa76bb53f897b9ca9d0e9b"),
]


@pytest.mark.parametrize(("kind", "seed", "name", "hexadecimal"), VECTORS)
def test_streams_equal_their_golden_vectors(
    kind: str, seed: int, name: str, hexadecimal: str
) -> None:
    assert random_bytes(kind, seed, name, 16).hex() == hexadecimal


def test_a_longer_stream_begins_with_the_shorter_one() -> None:
    assert random_bytes("signs", 1, "w", 1000)[:33] == random_bytes("signs", 1, "w", 33)


def test_no_two_of_kind_seed_and_name_share_a_stream() -> None:
    names = [(kind, seed, name) for kind, seed, name, _ in VECTORS]
    assert len({random_bytes(*name, 8) for name in names}) == len(names)


def test_many_streams_are_those_of_each_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts and streams of all lengths about a block of 136 bytes, short and long ones mixed."""
    names = ["w", "层.weight", "", "w", *("x" * length for length in range(100, 300))]
    for some in (names, names[4:], [f"layers.{n}.weight" for n in range(50)], []):
        counts = np.resize([0, 1, 135, 136, 137, 272, 273, 399, 33], len(some)).astype(np.int64)
        pairs = zip(some, counts.tolist(), strict=True)
        each = b"".join(random_bytes("signs", 7, name, count) for name, count in pairs if count)
        assert random_joined("signs", 7, some, counts).tobytes() == each
        with monkeypatch.context() as patch:
            patch.setattr("randes_cli.core.signs.library", lambda: None)
            assert random_joined("signs", 7, some, counts).tobytes() == each
