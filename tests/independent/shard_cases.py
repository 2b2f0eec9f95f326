"""Test vectors of banks in shards: good ones, and such as break a rule of section 15."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.independent.bad import joined, parts
from tests.independent.cases import LAYERS, WIDE, Vector, family, state, tuned

_SMALL = ["--max-shard-size", "1KB"]


def shard_vectors() -> dict[str, Vector]:
    """Banks in shards, by file name."""
    layers, wide = state("layers", LAYERS), state("wide", WIDE)
    add = ["add", "BANK", "late=late.safetensors"]
    return {
        "shards-packed": Vector(
            "in shards: two groups, shuffled layers, fillers",
            layers,
            family(layers),
            [*_SMALL, "--groups", "2", "--transform", "srsf"],
        ),
        "shards-edited": Vector(
            "in shards: one task removed, one added",
            wide,
            family(wide),
            [*_SMALL, "--bits", "8"],
            then=[["remove", "BANK", "--task", "t1", "--checkpoint", "t1.safetensors"], add],
            extra={"late": tuned(wide, "late")},
        ),
        "shards-sealed": Vector(
            "in shards of 4 kB, sealed at 3 bits",
            wide,
            family(wide),
            ["--max-shard-size", "4KB"],
            then=[["seal", "BANK", "--bits", "3", "--in-place"]],
        ),
    }


def folder_of(bank: Path) -> Path:
    """Where the shards of a bank lie."""
    return bank.with_name(f"{bank.name}.d")


def _first(bank: Path) -> Path:
    return min(folder_of(bank).iterdir())


def _absent(bank: Path) -> None:
    _first(bank).unlink()


def _short(bank: Path) -> None:
    shard = _first(bank)
    shard.write_bytes(shard.read_bytes()[:-1])


def _flipped(bank: Path) -> None:
    shard = _first(bank)
    data = bytearray(shard.read_bytes())
    data[8 + int.from_bytes(data[:8], "little")] ^= 1
    shard.write_bytes(data)


def _renamed(bank: Path) -> None:
    """The index names a path; its digests are right."""
    tensors = parts(bank.read_bytes())
    key = next(name for name in tensors if name.startswith("shard/"))
    named = {"shard/../x" if name == key else name: part for name, part in tensors.items()}
    bank.write_bytes(joined(named, "2"))


def _stranger(bank: Path) -> None:
    """The index has a tensor of its own."""
    tensors = parts(bank.read_bytes())
    bank.write_bytes(joined({"base/x": ("U8", [1], b"x"), **tensors}, "2"))


#: Name → the rule that is broken, and how.
BREAKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "shard-absent": ("a shard is not there", _absent),
    "shard-short": ("a shard is shorter than its header says", _short),
    "shard-flipped-bit": ("a bit of a shard's data is flipped", _flipped),
    "shard-named-as-a-path": ("a shard's name is no digest", _renamed),
    "shard-index-with-more": ("an index has a tensor that belongs in a shard", _stranger),
}


def bad_shards(good: Path, folder: Path) -> dict[str, object]:
    """Write a bank for each rule that can be broken; their entries of the index."""
    made: dict[str, object] = {}
    for name, (rule, change) in BREAKS.items():
        bank = folder / f"bad-{name}.randes"
        bank.write_bytes(good.read_bytes())
        shutil.copytree(folder_of(good), folder_of(bank), dirs_exist_ok=True)
        change(bank)
        made[f"bad-{name}"] = {"breaks": rule}
    return made
