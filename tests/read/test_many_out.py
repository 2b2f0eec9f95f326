"""Small tensors that one call retrieves are those that come piece by piece, checks and all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from randes_cli import BankDamaged, PackOptions, Transform, UnpackOptions, pack, seal, unpack
from randes_cli.files.sources import open_bank
from randes_cli.read import unpacking
from randes_cli.read.unpack import UnpackReport

State = dict[str, torch.Tensor]


def base_state() -> State:
    """Small tensors of all kinds: float and not, of layers, positive ones, one a loose end."""
    torch.manual_seed(0)
    made: State = {"ids": torch.arange(5), "ö.scale": torch.rand(9) / 64 + 2**-6}
    for layer in range(140):
        kind = (torch.float32, torch.bfloat16, torch.float16)[layer % 3]
        made[f"layers.{layer}.weight"] = torch.randn(3, 7).to(kind)
    made["wide.weight"], made["head.weight"] = torch.randn(40, 33), torch.randn(4, 5)
    made["empty"], made["one"] = torch.zeros(0, 4), torch.randn(1)
    return made


def task_state(base: State, seed: int) -> State:
    """Moved, but for one tensor; another has more rows."""
    torch.manual_seed(seed)
    made = {
        name: value + (torch.randn(value.shape) / 32).to(value.dtype)
        if value.is_floating_point() and name != "one"
        else value
        for name, value in base.items()
    }
    made["head.weight"] = torch.randn(4 + seed, 5)
    return made


def bank(folder: Path, **options: object) -> Path:
    states = [base_state(), *(task_state(base_state(), seed) for seed in (1, 2, 3))]
    for name, state in zip("bxyz", states, strict=True):
        save_file(state, folder / f"{name}.safetensors")
    made = folder / "bank.randes"
    tasks = [folder / f"{name}.safetensors" for name in "xyz"]
    pack(folder / "b.safetensors", tasks, made, PackOptions(**options))  # type: ignore[arg-type]
    return made


def both(
    path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: object
) -> list[tuple[bytes, tuple[object, ...]]]:
    """The file and its report, with small tensors together and one by one."""

    def made() -> tuple[bytes, tuple[object, ...]]:
        report = unpack(path, "y", out, UnpackOptions(force=True, **options))  # type: ignore[arg-type]
        found: UnpackReport = report[0]
        return out.read_bytes(), (found.turned, found.saturated, found.damaged)

    together = made()
    with monkeypatch.context() as patched:
        patched.setattr(unpacking, "small_runs", lambda retrieval: iter(()))
        return [together, made()]


@pytest.mark.parametrize("preset", ["two-sided", "hankel", "srsf", "shift", "ta"])
@pytest.mark.parametrize("dtype", [None, "F16", "F32", "F64"])
def test_small_tensors_come_out_together_as_they_do_one_by_one(
    preset: str, dtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bank(tmp_path, transform=Transform.from_preset(preset), bits=8 if dtype else 16)
    for more in ({}, {"coefficient": 8.0}):
        one, other = both(path, tmp_path / "o.safetensors", monkeypatch, dtype=dtype, **more)
        assert one == other


@pytest.mark.parametrize(
    "options",
    [{"groups": 2}, {"groups": 2, "share": 2}, {"max_shard_size": 4000}, {"bits": 2}],
    ids="-".join,
)
def test_so_they_do_from_banks_of_every_kind(
    options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both(bank(tmp_path, **options), tmp_path / "o.safetensors", monkeypatch)
    assert one == other


def _hurt(path: Path, key: str) -> None:
    with open_bank(str(path)) as file:
        place = file.store.address(key)[1]
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("change", [None, lambda path: seal(path, None, 2)], ids=["live", "sealed"])
@pytest.mark.parametrize("key", ["base/layers.7.weight", "sum/0/layers.100.weight"])
def test_damage_among_them_is_refused_and_with_force_named(
    key: str,
    change: Callable[[Path], object] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = bank(tmp_path)
    if change is not None:
        change(path)
    _hurt(path, key)
    with pytest.raises(BankDamaged, match=key):
        unpack(path, "y", tmp_path / "none.safetensors")
    assert not (tmp_path / "none.safetensors").exists()
    one, other = both(path, tmp_path / "o.safetensors", monkeypatch)
    assert one == other and one[1][2] == (key,)
