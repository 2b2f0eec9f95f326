"""Values of which no delta can be taken, or that a delta does not show: exact, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, add, pack, remove
from randes_cli.errors import CheckpointError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.ops.measure import measure
from randes_cli.specs import EditOptions
from tests.checkpoints import Packer, State, random_state, retrieve, same_bits, save

ONE = RunOptions(threads=1)
SHAPES = {"embed.weight": [40, 32], "w": [48, 32], "head": [20, 32]}


def tuned(base: State, seed: int, size: float = 0.01) -> State:
    """A task of a base: everything finite of it has moved."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: value + size * torch.randn(value.shape, generator=source).to(value.dtype)
        for name, value in base.items()
    }


def padded() -> State:
    base = random_state(SHAPES, seed=1)
    base["embed.weight"][0] = float("-inf")
    return base


@pytest.mark.parametrize("bits", [16, 2])
def test_a_tensor_of_the_base_with_infinite_values_is_kept_exactly(
    packer: Packer, bits: int
) -> None:
    base = padded()
    tasks = {"a": tuned(base, 1), "b": {**tuned(base, 2), "embed.weight": base["embed.weight"]}}
    for _ in range(2):  # over an old bank, too
        bank = packer.pack(base, tasks, PackOptions(bits=bits))
    report = packer.reports[-1]
    assert report.kept_exactly["a"] == {"embed.weight": "infinite values in the base"}
    for name, state in tasks.items():
        found = retrieve(bank, name)
        assert same_bits(found["embed.weight"], state["embed.weight"])
        assert not same_bits(found["w"], state["w"])
    with BankFile(bank) as file:
        assert "embed.weight" in file.task("b").unchanged
        assert file.task("a").own.keys() == {"embed.weight"}


def test_infinite_values_of_a_task_alone_are_refused_with_what_to_do(
    packer: Packer, tmp_path: Path
) -> None:
    base = padded()
    bad = tuned(base, 1)
    bad["embed.weight"][3, 3] = float("nan")
    with pytest.raises(CheckpointError, match=r"embed\.weight.*NaN.*[Ll]eave the checkpoint out"):
        packer.pack(base, {"a": bad})
    bank = packer.pack(base, {"a": tuned(base, 1)})
    later = [TaskInput("b", str(save(tuned(base, 2), tmp_path / "b.safetensors")))]
    add(bank, later, run=ONE)
    assert same_bits(retrieve(bank, "b")["embed.weight"], tuned(base, 2)["embed.weight"])


def test_tasks_on_a_base_with_infinite_values_go_and_are_replaced(packer: Packer) -> None:
    base = padded()
    wide = {name: value.double() for name, value in tuned(base, 2).items()}
    tasks = {"a": tuned(base, 1), "b": wide}
    bank = packer.pack(base, tasks)
    before = bank.read_bytes()
    put = packer.inputs(tasks)
    add(bank, put, EditOptions(), ONE, replace=True)
    for name, state in tasks.items():
        assert same_bits(retrieve(bank, name)["embed.weight"], state["embed.weight"])
    remove(bank, ["b"], EditOptions(), ONE)
    add(bank, put[1:], EditOptions(), ONE)
    assert same_bits(retrieve(bank, "b")["embed.weight"], wide["embed.weight"])
    assert len(bank.read_bytes()) == pytest.approx(len(before), abs=2000)


def test_a_tensor_kept_exactly_may_pass_the_range_of_float32(packer: Packer) -> None:
    base = random_state(SHAPES, seed=1)
    task = {**tuned(base, 1), "bounds": torch.tensor([1e300, -1e300], dtype=torch.float64)}
    assert same_bits(retrieve(packer.pack(base, {"a": task}), "a")["bounds"], task["bounds"])


def test_what_float32_does_not_tell_apart_is_kept_to_the_byte(packer: Packer) -> None:
    base = random_state(SHAPES, seed=1)
    base["head"] = base["head"].double()
    base["embed.weight"][0] = 0.0
    task = tuned(base, 1)
    task["embed.weight"] = base["embed.weight"].clone()
    task["embed.weight"][0] = -0.0
    task["head"] = base["head"] * (1 + 1e-12)
    other = {**tuned(base, 2), "head": base["head"]}
    for _ in range(2):
        bank = packer.pack(base, {"a": task, "b": other})
    found = retrieve(bank, "a")
    assert same_bits(found["embed.weight"], task["embed.weight"])
    assert same_bits(found["head"], task["head"])
    assert same_bits(retrieve(bank, "b")["head"], base["head"])
    assert set(packer.reports[-1].kept_exactly["a"]) == {"embed.weight", "head"}


@pytest.mark.parametrize("base_dtype", [torch.float64, torch.float32])
def test_changes_of_float64_below_what_float32_rounds_are_kept_exactly(
    base_dtype: torch.dtype, packer: Packer
) -> None:
    base = random_state({"small": [64, 64], "large": [64, 64]}, seed=1, dtype=base_dtype)
    noise = random_state({"small": [64, 64], "large": [64, 64]}, seed=2, dtype=torch.float64)
    task = {
        "small": base["small"].double() + 1e-8 * noise["small"],
        "large": base["large"].double() + 1e-4 * noise["large"],
    }
    bank = packer.pack(base, {"a": task})
    found = retrieve(bank, "a")
    assert same_bits(found["small"], task["small"])
    error = (found["large"] - task["large"]).norm() / (task["large"] - base["large"]).norm()
    assert 0 < error < 0.02
    assert set(packer.reports[-1].kept_exactly["a"]) == {"small"}


def test_the_noise_of_forgotten_tasks_is_predicted(packer: Packer, tmp_path: Path) -> None:
    base = random_state(SHAPES, seed=1)
    sizes = {"a": 0.01, "b": 0.03, "c": 0.02, "d": 0.01}
    tasks = {name: tuned(base, n, size) for n, (name, size) in enumerate(sizes.items())}
    for options in (PackOptions(), PackOptions(bits=2, groups=1)):
        bank = packer.pack(base, tasks, options)
        before = measured(bank, tmp_path)
        remove(bank, ["b"], EditOptions(), ONE, forget=True)
        remove(bank, ["c"], EditOptions(), ONE, forget=True)
        with BankFile(bank) as file:
            said = {one.name: one.predicted_cosine for one in describe(file).tasks}
        assert said.keys() == {"a", "d"}
        for name, value in said.items():
            assert value == pytest.approx(before[name], abs=0.04)
        with Bank.open(bank) as opened:
            assert set(opened.tasks) == {"a", "d"}


def measured(bank: Path, folder: Path) -> dict[str, float]:
    with BankFile(bank) as file:
        names = [task.name for task in file.manifest.tasks]
        named = {name: folder / f"{name}.safetensors" for name in names}
        return {one.task: one.cosine for one in measure(file, named, ONE)}


def test_what_a_forgotten_delta_adds_to_a_sum_is_written_down(packer: Packer) -> None:
    base = random_state(SHAPES, seed=1)
    bank = packer.pack(base, {"a": tuned(base, 1), "b": tuned(base, 2)}, PackOptions(groups=2))
    remove(bank, ["b"], EditOptions(), ONE, forget=True)
    with BankFile(bank) as file:
        found = file.floats("stats/forgotten")
        rows = list(file.manifest.base.tensors)
        wanted = np.array([[float((tuned(base, 2)[n] - base[n]).square().sum()) for n in rows]])
    assert found == pytest.approx(wanted, rel=1e-3)


def test_the_base_as_its_own_task_and_one_checkpoint_twice_are_said(packer: Packer) -> None:
    base = random_state(SHAPES, seed=1)
    one = tuned(base, 1)
    packer.pack(base, {"a": one, "itself": base, "b": one, "other": tuned(base, 2)})
    assert packer.reports[-1].notes == (
        "a, b: one checkpoint, to the byte",
        "itself: the base itself, to the byte",
    )


def test_add_and_dry_runs_say_which_tasks_are_one_checkpoint(tmp_path: Path) -> None:
    base = random_state(SHAPES, seed=1)
    one, other = tuned(base, 1), tuned(base, 2)
    inputs = Packer(tmp_path).inputs({"a": one, "b": one, "itself": base, "c": other, "d": other})
    source, bank = str(save(base, tmp_path / "base.safetensors")), tmp_path / "bank.randes"
    dry = pack(source, inputs, bank, run=ONE, dry_run=True).notes
    assert [line.removesuffix(", by a sample of each tensor") for line in dry] == [
        "itself: the base itself",
        "a, b: one checkpoint",
        "c, d: one checkpoint",
    ]
    pack(source, [inputs[0], inputs[3]], bank, run=ONE)
    dry = add(bank, [inputs[1], inputs[2]], EditOptions(dry_run=True), ONE).notes
    done = add(bank, [inputs[1], inputs[2]], EditOptions(), ONE).notes
    assert sorted(line.split(",", 2)[-1] for line in dry) == [" by a sample of each tensor"] * 2
    assert done == ("a, b: one checkpoint, to the byte", "itself: the base itself, to the byte")
    more = Packer(tmp_path).inputs({"e": tuned(base, 5)})
    assert add(bank, more, EditOptions(dry_run=True), ONE).notes == ()
    assert add(bank, more, EditOptions(), ONE).notes == ()


def test_a_dry_run_of_a_removal_tells_what_stays(packer: Packer) -> None:
    base = random_state(SHAPES, seed=1)
    bank = packer.pack(base, {"a": tuned(base, 1), "b": tuned(base, 2)})
    before = bank.read_bytes()
    dry = remove(bank, ["b"], EditOptions(dry_run=True), ONE)
    assert bank.read_bytes() == before
    real = remove(bank, ["b"], EditOptions(), ONE)
    assert dry.after == real.after and [one.name for one in real.after] == ["a"]
