"""The index of a bank in shards: its bytes, names and layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from randes_cli import BankDamaged, CheckpointError, NewerFormat, verify
from randes_cli.files.bank.file import BankFile
from tests.independent.bad import joined, parts
from tests.life.models import ONE


def test_every_byte_of_an_index_counts(bank: Path) -> None:
    data = bank.read_bytes()
    for place in range(0, len(data), 97):
        bank.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((BankDamaged, CheckpointError, NewerFormat)):
            verify(bank, run=ONE)


def _forged(bank: Path, change: Callable[[dict[str, tuple[str, list[int], bytes]]], None]) -> None:
    tensors = parts(bank.read_bytes())
    change(tensors)
    bank.write_bytes(joined(tensors, "2"))


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "A" * 32, "0" * 31, ""])
def test_a_name_of_a_shard_is_a_digest_and_never_a_path(bank: Path, name: str) -> None:
    def change(tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
        key = next(key for key in tensors if key.startswith("shard/"))
        tensors[f"shard/{name}"] = tensors.pop(key)

    _forged(bank, change)
    with pytest.raises(BankDamaged, match="shard"):
        BankFile(bank)


@pytest.mark.parametrize("room", ["-8", "7", '"8"', "1e3", "true"])
def test_the_layout_of_a_forged_index_is_refused(bank: Path, room: str) -> None:
    def change(tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
        text = f'{{"room":{room},"most":9}}'.encode()
        tensors["shards"] = ("U8", [len(text)], text)

    _forged(bank, change)
    with pytest.raises(BankDamaged, match="shards: room"):
        BankFile(bank)


def test_a_reader_of_before_refuses_the_feature_by_name(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.files.bank.manifest.FEATURES", frozenset({"superposition"}))
    with pytest.raises(NewerFormat, match="'shards'"):
        BankFile(bank)
