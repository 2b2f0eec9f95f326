"""What lies in a model's folder and is none of it: a bank with its shards, other models named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from randes_cli import PackOptions, RunOptions, add, diff, inspect, pack, remove, unpack
from randes_cli.errors import CheckpointError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.read.places import UnpackOptions
from randes_cli.specs import BaseStorage
from tests.checkpoints import State, perturbed, retrieve, save, small_model
from tests.files.folders import put

ONE = RunOptions(threads=1)
BASE = small_model()
SHARDS = PackOptions(max_shard_size=4000)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A bank in shards, with its inputs beside it."""
    save(BASE, tmp_path / "base.safetensors")
    save(perturbed(BASE, seed=1), tmp_path / "ft.safetensors")
    made = tmp_path / "bank.randes"
    pack(tmp_path / "base.safetensors", [tmp_path / "ft.safetensors"], made, SHARDS, ONE)
    assert len(list((tmp_path / "bank.randes.d").iterdir())) > 2
    return made


Use = Callable[[Path, Path], object]


@pytest.mark.parametrize(
    "use",
    [
        lambda bank, shards: pack(shards, [bank.with_name("ft.safetensors")], "x.randes"),
        lambda bank, shards: pack(bank.with_name("base.safetensors"), [shards], "x.randes"),
        lambda bank, shards: add(bank, {"new": shards}),
        lambda bank, shards: diff(bank.with_name("ft.safetensors"), shards),
        lambda bank, shards: unpack(bank, "ft", bank.with_name("o"), base=shards),
        lambda bank, shards: inspect(shards),
    ],
    ids=["as base", "as task", "added", "compared", "as the bank's base", "as bank"],
)
def test_a_bank_s_shards_are_called_so_and_the_bank_is_named(use: Use, bank: Path) -> None:
    shards = bank.with_name("bank.randes.d")
    with pytest.raises(CheckpointError) as error:
        use(bank, shards)
    assert f"{shards}: the folder of a bank's shards; the bank is {bank}" in str(error.value)
    alone = shards.rename(bank.with_name("alone.d"))
    with pytest.raises(CheckpointError, match="the bank itself, alone, is not beside it"):
        open_checkpoint(str(alone))
    moved = alone.rename(bank.with_name("moved"))
    with pytest.raises(CheckpointError, match="without the bank's own file"):
        open_checkpoint(str(moved))


def test_a_folder_with_a_bank_alone_names_it(bank: Path, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"but the bank {bank}")):
        open_checkpoint(str(tmp_path))


def test_a_bank_in_a_model_s_folder_is_none_of_its_components(bank: Path, tmp_path: Path) -> None:
    (tmp_path / "ft.safetensors").unlink()
    with open_checkpoint(str(tmp_path)) as opened:
        assert set(opened.tensors) == set(BASE)
        assert opened.left_out == {
            "bank.randes": "a bank",
            "bank.randes.d/": "the shards of a bank",
        }


def family(tmp_path: Path) -> State:
    """A base's folder with two tasks in it and a component; returns the first task."""
    cars = perturbed(BASE, seed=1)
    save(BASE, tmp_path / "base" / "model.safetensors")
    save({"w": BASE["a.weight"] * 2}, tmp_path / "base" / "dense" / "model.safetensors")
    save(cars, tmp_path / "base" / "ft" / "cars" / "model.safetensors")
    save(perturbed(BASE, seed=2), tmp_path / "base" / "dtd" / "last.safetensors")
    return cars


@pytest.mark.parametrize("storage", list(BaseStorage)[:2])
def test_tasks_named_within_the_base_s_folder_are_no_components_of_it(
    storage: BaseStorage, tmp_path: Path
) -> None:
    cars, base = family(tmp_path), tmp_path / "base"
    bank, options = tmp_path / "bank.randes", PackOptions(base_storage=storage, bits=16)
    named = {"cars": base / "ft" / "cars", "dtd": base / "dtd" / "last.safetensors"}
    report = pack(base, named, bank, options, ONE)
    assert "base: the weights in dense/ are read as components, too" in report.notes
    with BankFile(bank) as opened:
        record = opened.manifest.base
        assert set(record.tensors) == {*BASE, "dense/w"}
        assert record.left_out == dict.fromkeys(
            ("dtd/", "ft/cars/"), "named beside it, as a model of its own"
        )
    found = retrieve(bank, "cars")
    assert set(found) == set(cars)
    assert all((found[name] - cars[name]).abs().max() < 0.1 for name in cars)
    add(bank, {"more": base / "ft" / "cars"}, run=ONE)
    remove(bank, "more", run=ONE)
    remove(bank, "cars", run=ONE)
    (done,) = unpack(bank, "dtd", tmp_path / "o", UnpackOptions(), ONE)
    assert [Path(file).name for file in done.files] == ["dtd.safetensors"]


def test_an_original_that_has_gained_a_sub_folder_is_read_as_it_was_packed(tmp_path: Path) -> None:
    base, task = tmp_path / "base", tmp_path / "task"
    save(BASE, base / "model.safetensors")
    save(perturbed(BASE, seed=1), task / "model.safetensors")
    bank = tmp_path / "bank.randes"
    pack(base, [task], bank, PackOptions(base_storage=BaseStorage.reference), ONE)
    for folder in (base, task):
        save(BASE, folder / "later" / "model.safetensors")
    assert set(retrieve(bank, "task")) == set(BASE)
    remove(bank, "task", run=ONE)


@pytest.mark.parametrize("whole", ["consolidated", "model", "open_clip_model"])
def test_a_model_goes_before_an_adapter_beside_it(whole: str, tmp_path: Path) -> None:
    put(tmp_path / "adapter_model.safetensors", "w.lora_A.weight")
    put(tmp_path / f"{whole}.safetensors", "w.weight")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["w.weight"]
        assert "adapter_model.safetensors" in checkpoint.left_out
