"""A bank that becomes another while it is open: what was opened, or an error; never a mixture."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import randes_cli
from randes_cli import Bank, Pool
from randes_cli.errors import BankDamaged
from randes_cli.specs import BaseStorage
from tests.live.many import TASKS, bank_of, options, pack_folders
from tests.models import llama, perturb, save

Replace = Callable[[Path, Path], object]


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two of one architecture and other values throughout."""
    folder = tmp_path_factory.mktemp("banks")
    (folder / "other").mkdir()
    one = bank_of(llama, folder)
    torch.manual_seed(5)
    model, _ = llama()
    for number, name in enumerate(["base", *TASKS]):
        save(model, folder / "other" / name, torch.float32, sharded=False)
        perturb(model, 10 + number)
    return one, pack_folders(folder / "other", options())


def _by_a_new_file(bank: Path, other: Path) -> None:
    shutil.copyfile(other, bank.with_suffix(".new"))
    os.replace(bank.with_suffix(".new"), bank)


def _half(bank: Path, other: Path) -> None:
    half = bank.stat().st_size // 2
    with bank.open("r+b") as file:
        file.seek(half)
        file.write(other.read_bytes()[half : 2 * half])


def _cut(bank: Path, other: Path) -> None:
    os.truncate(bank, bank.stat().st_size // 2)


HELD: list[Replace] = [_by_a_new_file, lambda bank, _: bank.unlink()]
LOST: list[Replace] = [lambda bank, other: shutil.copyfile(other, bank), _half, _cut]


def _filled(bank: Bank, model: Any, task: str) -> None:
    bank.load_into(model, task)


def _built(bank: Bank, model: Any, task: str) -> None:
    state = randes_cli.transformers.from_bank(bank, task).state_dict()
    model.load_state_dict(state)


def _attached(bank: Bank, model: Any, task: str) -> None:
    base = randes_cli.transformers.from_bank(bank)
    mixed = randes_cli.attach(base, bank, tasks=[task])
    ids = torch.tensor([[5, 6, 7]])
    with mixed.tasks([task]), torch.no_grad():
        found = base(input_ids=ids).logits
    _filled(bank, model, task)
    assert (found - model(input_ids=ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize("use", [_filled, _built, _attached])
@pytest.mark.parametrize("replace", [*HELD, *LOST], ids=["new", "gone", "copied", "half", "cut"])
def test_an_open_bank_stays_what_it_is_or_says_that_it_is_not(
    banks: tuple[Path, Path], replace: Replace, use: Callable[..., None], tmp_path: Path
) -> None:
    bank, (one, other) = tmp_path / "bank.randes", banks
    shutil.copyfile(one, bank)
    model: Any = randes_cli.transformers.from_bank(one)
    with Bank.open(bank) as found:
        use(found, model, "cars")  # so that what it reads is known to be sound
        replace(bank, other)
        if replace in LOST:
            with pytest.raises(BankDamaged, match=r"bank\.randes: was written over in place since"):
                use(found, model, "sun")
            return
        use(found, model, "sun")
    wanted = randes_cli.transformers.from_bank(one, "sun").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("replace", [*HELD, *LOST], ids=["new", "gone", "copied", "half", "cut"])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("shards", [False, True], ids=["a file", "shards"])
def test_a_pool_swaps_what_it_holds_or_refuses(
    banks: tuple[Path, Path], replace: Replace, resident: bool, shards: bool, tmp_path: Path
) -> None:
    bank, (one, other) = tmp_path / "bank.randes", banks
    if shards:
        randes_cli.convert(one, bank, max_shard_size=2**15)
    else:
        shutil.copyfile(one, bank)
    model: Any = randes_cli.transformers.from_bank(one)
    with Pool(bank, model, resident=resident) as pool:
        with pool.use("cars"):
            pass
        for file in sorted(bank.with_name("bank.randes.d").iterdir()) if shards else [bank]:
            replace(file, other)
        for task in ("sun", "cars"):
            if replace in LOST and not resident:
                with pytest.raises(BankDamaged, match="was written over in place"), pool.use(task):
                    pass
                continue
            with pool.use(task):
                state = dict(model.state_dict())
            wanted = randes_cli.transformers.from_bank(one, task).state_dict()
            assert all(torch.equal(state[name], wanted[name]) for name in wanted)


def test_a_base_outside_that_is_trained_on_is_another(tmp_path: Path) -> None:
    bank_of(llama, tmp_path)
    bank = pack_folders(tmp_path, options(base_storage=BaseStorage.reference))
    model: Any = randes_cli.transformers.from_bank(bank)
    with Bank.open(bank) as found:
        found.load_into(model, "cars")
        shutil.copyfile(
            tmp_path / "sun" / "model.safetensors", tmp_path / "base" / "model.safetensors"
        )
        with pytest.raises(randes_cli.MismatchError, match="has other values than the base"):
            found.load_into(model, "sun")
