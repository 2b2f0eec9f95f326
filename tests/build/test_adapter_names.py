"""Banks of adapters some of which have the adapter's own name in their factors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli import TaskInput, add, pack, remove, unpack
from randes_cli.errors import MismatchError
from randes_cli.specs import PackOptions
from tests.build.test_adapter_banks import KEEP, inputs, save_adapter

FILE = "adapter_model.safetensors"


def rename(folder: Path, old: str, new: str) -> None:
    """Give an adapter's tensors other names, as trainers that save a model's state dict do."""
    tensors = load_file(folder / FILE)
    save_file({name.replace(old, new): t for name, t in tensors.items()}, folder / FILE)


def back(bank: Path, task: str, folder: Path) -> dict[str, torch.Tensor]:
    unpack(bank, [task], folder / f"{bank.stem}-{task}")
    return load_file(folder / f"{bank.stem}-{task}" / FILE)


def plainly(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace(".default.", "."): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("first", ["plain", "named"])
def test_factors_with_their_adapters_name_are_those_without_it(first: str, tmp_path: Path) -> None:
    """What comes back is as if all had the first one's names, which signs follow."""
    names = [first, "named" if first == "plain" else "plain"]
    made: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
    for kind in ("alike", "mixed"):
        for seed, name in enumerate(["plain", "named", "late"]):
            save_adapter(tmp_path, name, seed, modules_to_save=["lm_head"])
            if name == "named" if kind == "mixed" else first == "named":
                rename(tmp_path / name, ".weight", ".default.weight")
                rename(tmp_path / name, "lm_head.default.weight", "lm_head.weight")
        bank = tmp_path / f"{kind}.randes"
        report = pack(None, inputs(tmp_path, *names), bank, KEEP)
        assert any("8 tensors under another" in n for n in report.tasks[1].notes) == (
            kind == "mixed"
        )
        before = back(bank, names[1], tmp_path / "before")
        add(bank, inputs(tmp_path, "late"))
        made[kind] = {name: back(bank, name, tmp_path) for name in [*names, "late"]}
        remove(bank, ["late"])
        after = back(bank, names[1], tmp_path / "after")
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    for name, tensors in made["mixed"].items():
        assert any(".lora_A.default." in own for own in tensors) == (name == "named")
        found, wanted = plainly(tensors), plainly(made["alike"][name])
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[own], wanted[own]) for own in wanted)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.", "module.base_model."),
        ("base_model.", "_orig_mod.base_model."),
        ("base_model.model.model.", "base_model.model._fsdp_wrapped_module.model."),
        ("base_model.model.", ""),
    ],
)
def test_words_of_wrappers_in_factors_are_the_tasks_own(old: str, new: str, tmp_path: Path) -> None:
    for seed, name in enumerate(["one", "two"]):
        save_adapter(tmp_path, name, seed)
    pack(None, inputs(tmp_path, "one", "two"), tmp_path / "plain.randes", KEEP)
    wanted = back(tmp_path / "plain.randes", "two", tmp_path)
    rename(tmp_path / "two", old, new)
    rename(tmp_path / "two", ".weight", ".default.weight")
    pack(None, inputs(tmp_path, "one", "two"), tmp_path / "bank.randes", KEEP)
    found = back(tmp_path / "bank.randes", "two", tmp_path)
    assert found.keys() == load_file(tmp_path / "two" / FILE).keys()
    for name, tensor in plainly(found).items():
        own = old + name if not new else name.replace(new, old, 1)
        assert torch.equal(tensor, wanted[own])


def test_another_rank_or_target_is_refused_whatever_the_names(tmp_path: Path) -> None:
    save_adapter(tmp_path, "plain", 0)
    for name, more in (("rank", {"r": 2}), ("target", {"target_modules": ["q_proj"]})):
        save_adapter(tmp_path, name, 1, **more)
        rename(tmp_path / name, ".weight", ".mine.weight")
        tasks = [TaskInput(one, str(tmp_path / one)) for one in ("plain", name)]
        said = (
            "has rank 2, not 4" if name == "rank" else "does not target model.layers.0.self_attn.v"
        )
        with pytest.raises(MismatchError, match=said):
            pack(None, tasks, tmp_path / "bank.randes", PackOptions(adapters=True))
