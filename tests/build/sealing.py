"""Families to seal."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli import PackOptions, RunOptions, TaskInput, pack
from randes_cli.files.bank.file import BankFile
from tests.checkpoints import save_family

ONE = RunOptions(threads=1)
#: No thread has room for a sum: all are read twice.
TWICE = RunOptions(threads=1, max_memory=1)
SHAPES = {
    "a.0.weight": [64, 48],
    "a.1.weight": [64, 48],
    "odd.weight": [37, 43],
    "conv.weight": [40, 6, 3, 3],
    "norm.weight": [50],
    "thin.weight": [200, 2],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_family(tmp_path, SHAPES, [f"t{n}" for n in range(5)], seed=1)
    return tmp_path


def packed(folder: Path, count: int, options: PackOptions | None = None, name: str = "b") -> Path:
    tasks = [TaskInput(f"t{n}", str(folder / f"t{n}.safetensors")) for n in range(count)]
    out = folder / f"{name}.randes"
    pack(str(folder / "base.safetensors"), tasks, out, options or PackOptions(), ONE, force=True)
    return out


def sums(bank: Path, *groups: int) -> dict[str, bytes]:
    starts = tuple(f"{kind}/{group}/" for group in groups for kind in ("sum", "scale"))
    with BankFile(bank) as file:
        keys = [key for key in file.header.tensors if key.startswith(starts)]
        return {key: file.read_whole(key).tobytes() for key in keys}
