"""What a bank calls unchanged comes back to the byte: resized, in another dtype, or a factor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from randes_cli import PackOptions, RunOptions, add, pack, remove
from randes_cli.files.bank.file import BankFile
from randes_cli.specs import EditOptions
from tests.build.test_adapter_banks import inputs, save_adapter
from tests.checkpoints import Packer, State, same_bits, save
from tests.checkpoints import retrieve as read

ONE = RunOptions(threads=1)


def base_of(dtype: torch.dtype) -> State:
    chance = torch.Generator().manual_seed(2)
    made = {"embed.weight": torch.randn(12, 8, generator=chance)}
    made["w"] = torch.randn(16, 16, generator=chance)
    made["embed.weight"][0] = 0.0
    return {name: value.to(dtype) for name, value in made.items()}


def rows(value: torch.Tensor, count: int) -> torch.Tensor:
    """The same with more rows or fewer."""
    return torch.cat([value, value[:4] + 1])[:count].clone()


@pytest.mark.parametrize("count", [10, 12, 15])
@pytest.mark.parametrize("dtypes", ["f32 f32", "bf16 f32", "f64 f64", "f16 f64", "bf16 bf16"])
def test_rows_and_dtypes_that_the_base_does_not_have_come_back_to_the_byte(
    packer: Packer, dtypes: str, count: int
) -> None:
    named = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}
    kinds = {**named, "f16": torch.float16}
    ours, theirs = (kinds[word] for word in dtypes.split())
    base = base_of(ours)
    same = {n: rows(v, count) if n == "embed.weight" else v for n, v in base.items()}
    plain = {name: value.to(theirs) for name, value in same.items()}
    minus = {name: value.clone() for name, value in plain.items()}
    minus["embed.weight"][0] = -0.0
    minus["w"] = minus["w"] + 0.5
    fine = {**plain, "w": plain["w"] * (1 + 1e-12)}
    bank = packer.pack(base, {"plain": plain, "minus": minus, "fine": fine})
    assert all(same_bits(read(bank, "plain")[name], plain[name]) for name in plain)
    assert same_bits(read(bank, "minus")["embed.weight"][0], minus["embed.weight"][0])
    if theirs is torch.float64:
        assert same_bits(read(bank, "fine")["w"], fine["w"])
    before = bank.read_bytes()
    with BankFile(bank) as opened:
        unchanged = {task.name: task.unchanged for task in opened.manifest.tasks}
    found = {task: read(bank, task) for task in unchanged}
    truth = {"plain": plain, "minus": minus, "fine": fine}
    for task, names in unchanged.items():
        assert all(same_bits(found[task][name], truth[task][name]) for name in names)
    assert before == packer.pack(base, truth).read_bytes()


def test_what_was_kept_to_the_byte_is_taken_out_again(tmp_path: Path) -> None:
    base = base_of(torch.bfloat16)
    plain = {name: value.float() for name, value in base.items()}
    minus = {**plain, "embed.weight": plain["embed.weight"].clone()}
    minus["embed.weight"][0] = -0.0
    other = {**plain, "w": plain["w"] + 0.5}
    tasks, bank = Packer(tmp_path).inputs({"a": minus, "b": other}), tmp_path / "bank.randes"
    source = str(save(base, tmp_path / "base.safetensors"))
    pack(source, tasks, bank, run=ONE)
    assert same_bits(read(bank, "a")["embed.weight"], minus["embed.weight"])
    remove(bank, ["a"], EditOptions(), ONE)
    assert [task.name for task in BankFile(bank).manifest.tasks] == ["b"]


def test_a_factor_of_minus_zeros_is_no_zero_of_a_bank_of_adapters(tmp_path: Path) -> None:
    for seed, name in enumerate(["cars", "dtd"]):
        save_adapter(tmp_path, name, seed)
    path = tmp_path / "cars" / "adapter_model.safetensors"
    state = load_file(path)
    zero, minus = sorted(state)[:2]
    state[zero], state[minus] = torch.zeros_like(state[zero]), -torch.zeros_like(state[minus])
    save_file(state, path, metadata={"format": "pt"})
    options = PackOptions(adapters=True)
    pack(None, inputs(tmp_path, "cars", "dtd"), tmp_path / "bank.randes", options, ONE)
    found = read(tmp_path / "bank.randes", "cars")
    assert same_bits(found[zero], state[zero]) and same_bits(found[minus], state[minus])
    with BankFile(tmp_path / "bank.randes") as bank:
        task = bank.task("cars")
        assert set(task.own) == {minus} and set(task.unchanged) == {zero}


@pytest.mark.parametrize("width", [torch.float64, torch.float32])
def test_a_dry_run_foresees_what_float32_does_not_show_of_float64(
    width: torch.dtype, tmp_path: Path
) -> None:
    base, chance = base_of(width), torch.Generator().manual_seed(3)
    plain = {name: value.double() for name, value in base.items()}
    fine = {**plain, "w": plain["w"] * (1 + 1e-10)}
    other = {n: v + 0.1 * torch.randn(v.shape, generator=chance) for n, v in plain.items()}
    tasks, bank = Packer(tmp_path).inputs({"a": fine, "b": other}), tmp_path / "bank.randes"
    source = str(save(base, tmp_path / "base.safetensors"))
    ahead = pack(source, tasks, bank, run=ONE, dry_run=True)
    made = pack(source, tasks, bank, run=ONE)
    assert ahead.kept_exactly == made.kept_exactly and list(made.kept_exactly["a"]) == ["w"]
    assert not made.kept_exactly["b"]
    assert ahead.bank_bytes == made.bank_bytes

    (late,) = Packer(tmp_path).inputs({"c": {**fine, "w": fine["w"] * (1 + 1e-10)}})
    wanted = add(bank, [late], EditOptions(dry_run=True), ONE)
    found = add(bank, [late], EditOptions(), ONE)
    assert wanted.kept_exactly == found.kept_exactly and list(found.kept_exactly["c"]) == ["w"]
