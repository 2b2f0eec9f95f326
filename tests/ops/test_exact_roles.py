"""Statistics and constants come back as they were, beside weights that carry noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from randes_cli import EditOptions, PackOptions, RunOptions, TaskInput, Transform
from randes_cli.build.edit import add, remove
from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.measure import measure
from tests.checkpoints import Packer, generator, perturbed, random_state, retrieve, same_bits, save

ONE = RunOptions(threads=1)
STATISTICS = ("running_mean", "running_var")


def network(seed: int) -> dict[str, torch.Tensor]:
    """Convolutions and batch norms of three layers; variances lie near 1/100."""
    state = random_state({f"layers.{k}.conv.weight": [32, 32, 3, 3] for k in range(3)}, seed=seed)
    for k in range(3):
        state[f"layers.{k}.bn.weight"] = torch.ones(16)
        state[f"layers.{k}.bn.bias"] = torch.zeros(16)
        state[f"layers.{k}.bn.running_mean"] = torch.zeros(16)
        state[f"layers.{k}.bn.running_var"] = torch.full((16,), 0.01)
        state[f"layers.{k}.bn.num_batches_tracked"] = torch.tensor(7)
    return state


def tuned(base: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    task, source = perturbed(base, seed=seed), generator(seed)
    for name in task:
        if name.endswith("running_var"):
            task[name] = torch.rand(16, generator=source) * 0.02 + 1e-4
        if name.endswith("num_batches_tracked"):
            task[name] = torch.tensor(100 + seed)
    return task


@pytest.mark.parametrize("preset", ["hankel", "srsf", "two-sided"])
@pytest.mark.parametrize("bits", [16, 8, 2])
def test_statistics_come_back_bit_for_bit_and_weights_do_not(
    packer: Packer, preset: str, bits: int
) -> None:
    base = network(0)
    tasks = {f"t{n}": tuned(base, n) for n in range(4)}
    options = PackOptions(Transform.from_preset(preset), bits=bits)
    bank = packer.pack(base, tasks, options)
    for name, task in tasks.items():
        back = retrieve(bank, name)
        kept = {key for key in task if key.endswith((*STATISTICS, "num_batches_tracked"))}
        assert all(same_bits(back[key], task[key]) for key in kept)
        assert not any(torch.equal(back[key], task[key]) for key in task.keys() - kept)
    with BankFile(bank) as file:
        assert file.manifest.transform.exact == {key for key in base if key.endswith(STATISTICS)}
        assert not any("running" in key for key in file.header.tensors if key.startswith("sum/"))
    reasons = packer.reports[-1].kept_exactly["t0"]
    assert reasons["layers.0.bn.running_var"] == "a running statistic"


def test_statistics_are_exact_of_added_tasks_and_go_with_removed_ones(
    packer: Packer, tmp_path: Path
) -> None:
    base = network(1)
    first, second = tuned(base, 1), tuned(base, 2)
    bank = packer.pack(base, {"a": first})
    with BankFile(bank) as file:
        before = {key for key in file.header.tensors if key.startswith("own/")}
    added = save(second, tmp_path / "b.safetensors")
    add(bank, [TaskInput("b", str(added))], EditOptions(), ONE)
    name = "layers.1.bn.running_var"
    assert same_bits(retrieve(bank, "b")[name], second[name])
    with BankFile(bank) as file:
        (found,) = measure(file, {"b": str(added)}, ONE)
    assert name not in {tensor.name for tensor in found.tensors}
    remove(bank, ["b"], run=ONE, checkpoints={"b": str(added)})
    assert same_bits(retrieve(bank, "a")[name], first[name])
    with BankFile(bank) as file:
        assert {key for key in file.header.tensors if key.startswith("own/")} == before


def test_what_was_positive_in_the_base_and_turns_is_named(
    packer: Packer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a name that tells nothing: a statistic of somebody's own."""
    base = random_state({"w": [64, 64]}) | {
        "spread": torch.full((512,), 0.01),
        "sure": torch.full((512,), 9.0),
    }
    source = generator(3)
    tasks = {}
    for n in range(6):
        tasks[f"t{n}"] = perturbed(base, seed=n)
        tasks[f"t{n}"]["spread"] = torch.rand(512, generator=source) * 0.02 + 1e-4
    bank = packer.pack(base, tasks)
    back = retrieve(bank, "t0")
    assert (back["spread"] < 0).any() and (back["sure"] > 0).all()
    for dtype in ([], ["--dtype", "BF16"]):
        words = ["unpack", str(bank), "--task", "t0", "-o", str(tmp_path / "o.st"), "--force"]
        assert run([*words, *dtype, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["tasks"][0]["turned"] == ["spread"]
    assert run(words) == 0
    assert "positive throughout in the base" in capsys.readouterr().err
    assert run([*words, "--lambda", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["turned"] == []
