"""Tensors of a few bytes come out of compiled code as they do without it, and are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from randes_cli import BankDamaged, PackOptions, RunOptions, UnpackOptions, pack, unpack
from randes_cli.core.compiled.back import Backer
from randes_cli.core.compiled.kernel import available
from randes_cli.files.sources import open_bank

_SIZES = [2, 3, 5, 8, 9, 16, 17, 60, 61, 64, 65, 120, 121, 128, 129, 241]


@pytest.mark.parametrize("bits", [16, 8, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_short_tensors_come_out_alike_and_damage_in_them_is_found(
    tmp_path: Path, bits: int, dtype: type[np.floating[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(bits)
    shapes = {f"w{size}": (1, size) for size in _SIZES} | {f"v{size}": (size,) for size in _SIZES}
    shapes["large"] = (256, 256)  # can be sealed
    base = {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}
    save_file(base, tmp_path / "base.safetensors")
    for task in range(2):
        moved = {
            n: (v + 0.01 * rng.standard_normal(v.shape)).astype(dtype) for n, v in base.items()
        }
        save_file(moved, tmp_path / f"t{task}.safetensors")
    bank, out = tmp_path / "bank.randes", tmp_path / "out.safetensors"
    tasks = [tmp_path / f"t{task}.safetensors" for task in range(2)]
    pack(tmp_path / "base.safetensors", tasks, bank, PackOptions(bits=bits))
    made, backed = [], list[int]()
    back, back_many = Backer.back, Backer.back_many
    for many, compiled in ((True, True), (False, True), (False, False)):
        backed.clear()

        def one(*arguments: object, on: bool = compiled) -> object:
            found = back(*arguments) if on else None  # type: ignore[arg-type]
            backed.append(int(found is not None))
            return found

        def some(*arguments: object, on: bool = many) -> object:
            found = back_many(*arguments) if on else None  # type: ignore[arg-type]
            backed.append(0 if found is None else int(found[1].sum()))
            return found

        monkeypatch.setattr(Backer, "back", one)
        monkeypatch.setattr(Backer, "back_many", some)
        options = UnpackOptions(force=True)
        unpack(bank, "t1", out, options, RunOptions(threads=1))
        made.append(out.read_bytes())
        assert sum(backed) in (0, len(base) * compiled)  # 0 where nothing is compiled
        assert max(backed) == (len(base) - 1) * available() or not many
    assert made[0] == made[1] == made[2] and set(load_file(out)) == set(base)
    monkeypatch.undo()
    for key in ("base/w9", "sum/0/v17"):
        with open_bank(str(bank)) as file:
            place = file.store.address(key)[1]
        data = bytearray(bank.read_bytes())
        data[place] ^= 1
        (tmp_path / "hurt.randes").write_bytes(bytes(data))
        with pytest.raises(BankDamaged, match=key):
            unpack(tmp_path / "hurt.randes", "t1", tmp_path / "other.safetensors")
