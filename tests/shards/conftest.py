"""Banks in shards of the family that edits are tested with, and the same ones in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from randes_cli import convert
from tests.life.family import family_files, folder
from tests.life.models import make_bank, options

__all__ = ["family_files", "folder"]

#: Bytes of a shard: the table of the family has one to itself, and so has its superposition.
SIZE = 20_000


def sharded(
    folder: Path, *names: str, out: str = "bank.randes", size: int = SIZE, **more: object
) -> Path:
    """A bank in shards."""
    chosen = replace(options(**more), max_shard_size=size)  # type: ignore[arg-type]
    return make_bank(folder, names, chosen, out=out)


def shards(bank: Path) -> dict[str, bytes]:
    """The files of a bank beside its index."""
    folder = bank.with_name(f"{bank.name}.d")
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path.read_bytes() for path in found}


def inodes(bank: Path) -> dict[str, int]:
    """The same, as what tells whether a file was written anew."""
    folder = bank.with_name(f"{bank.name}.d")
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def as_single(bank: Path) -> bytes:
    """The bytes of the same bank in one file."""
    out = bank.with_name(f"{bank.stem}-single.randes")
    convert(bank, out, single_file=True, force=True)
    return out.read_bytes()


def everything(bank: Path) -> tuple[bytes, dict[str, bytes]]:
    """All bytes of a bank."""
    return bank.read_bytes(), shards(bank)


@pytest.fixture
def bank(folder: Path) -> Path:
    return sharded(folder, "whole", "half")
