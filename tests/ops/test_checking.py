"""Small tensors that are checked together are told of as if each were checked by itself."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli import PackOptions, pack
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import CHECKS
from randes_cli.files.sources import open_bank
from randes_cli.ops import checking
from randes_cli.ops.verify import verify
from randes_cli.specs import RunOptions

_SHAPES = [(4, 6), (7,), (8, 20), (1, 3), (300, 40)]


def _bank(folder: Path, bits: int, most: int | None) -> Path:
    rng = np.random.default_rng(1)
    base = {
        f"layers.{n}.w{n % 5}": rng.standard_normal(_SHAPES[n % 5]).astype(np.float32)
        for n in range(60)
    }
    save_file(base, folder / "base.safetensors")
    for task in range(2):
        moved = {name: value + np.float32(0.01) * (task + 1) for name, value in base.items()}
        save_file({**moved, f"head{task}": np.arange(9)}, folder / f"t{task}.safetensors")
    tasks = [folder / f"t{task}.safetensors" for task in range(2)]
    out = folder / "bank.randes"
    options = PackOptions(bits=bits, max_shard_size=most)
    pack(folder / "base.safetensors", tasks, out, options)
    return out


@pytest.mark.parametrize(("bits", "most"), [(16, None), (2, None), (16, 60_000)])
def test_damage_among_small_tensors_is_told_tensor_by_tensor(
    tmp_path: Path, bits: int, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _bank(tmp_path, bits, most)
    chance = random.Random(bits)
    with open_bank(str(path)) as bank:
        assert any(isinstance(job, checking._Run) for job in _jobs(bank))
        keys = [key for key in bank.header.tensors if key.startswith(("base/", "sum/", "own/"))]
        hurt = sorted(chance.sample([key for key in keys if bank.info(key).nbytes], 7))
        beside = path.parent / f"{path.name}.d"
        files = [path, *(beside / f"{name}.safetensors" for name in bank.store.shards)]
        places = {key: bank.store.address(key) for key in hurt}
    for file, place in places.values():
        data = bytearray(files[file].read_bytes())
        data[place] ^= 1
        files[file].write_bytes(bytes(data))
    found = []
    for small in (checking._SMALL, 0):
        monkeypatch.setattr(checking, "_SMALL", small)
        with open_bank(str(path)) as bank:
            found.append(verify(bank, RunOptions(threads=1)))
    assert found[0] == found[1]
    assert found[0].damaged == tuple(hurt)


def _jobs(bank: BankFile) -> list[object]:
    return list(checking._Check(bank, [key for key in bank.header.tensors if key != CHECKS]).jobs())
