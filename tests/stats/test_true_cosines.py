"""Predicted cosines against true ones: of what comes back with the original, over random banks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, add, pack, verify
from randes_cli.build.seal.seal import seal
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.describe import describe
from randes_cli.reports import TaskSummary
from tests.checkpoints import Packer, State, cosine, delta, save

ONE = RunOptions(threads=1)
SHAPES = {
    **{f"layers.{layer}.weight": (64, 48) for layer in range(3)},
    "embed.weight": (40, 48),
    "norm.weight": (96,),
    "layers.0.conv.weight": (16, 4, 3, 3),
}
KINDS = ("dense", "sparse", "low rank", "shared", "outlier", "one layer", "half zero")
PRESETS = ("hankel", "two-sided", "srsf", "rsf", "s", "shift", "ta")


@dataclass
class Models:
    """A random base and deltas of all kinds from it, of sizes 1 : 10^`spread`."""

    source: np.random.Generator
    spread: float
    kind: str | None = None

    def __post_init__(self) -> None:
        self.base = {name: self._normal(shape) * 0.02 for name, shape in SHAPES.items()}
        self.common = {name: self._normal(shape) for name, shape in SHAPES.items()}

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.source.standard_normal(shape)

    def task(self) -> dict[str, torch.Tensor]:
        size = 0.01 * 10.0 ** -self.source.uniform(0, self.spread)
        kind, far = (
            self.kind or str(self.source.choice(KINDS)),
            str(self.source.choice(list(SHAPES))),
        )
        made = {}
        for name in SHAPES:
            value = self._delta(kind, name, far) * size
            made[name] = self._tensor(self.base[name].astype(np.float32) + value)
        return made

    def _delta(self, kind: str, name: str, far: str) -> np.ndarray:
        value = self._normal(SHAPES[name])
        if kind == "sparse":
            value *= self.source.random(value.shape) < 0.02
        elif kind == "low rank" and value.ndim > 1:
            rows = value.reshape(-1, value.shape[-1])
            thin = self._normal((rows.shape[0], 2)) @ self._normal((2, rows.shape[1]))
            value = thin.reshape(value.shape)
        elif kind == "shared":
            value = 0.8 * self.common[name] + 0.6 * value
        elif kind == "outlier" and name == far:
            value.flat[self.source.integers(value.size)] = 10.0 ** self.source.uniform(1, 5)
        elif kind == "one layer" and name == far:
            value *= 1000
        elif kind == "half zero" and self.source.random() < 0.5:
            value *= 0
        return value

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))

    def whole(self) -> dict[str, torch.Tensor]:
        return {name: self._tensor(value) for name, value in self.base.items()}


def came_back(bank: Bank, name: str, tasks: dict[str, State], base: State) -> float:
    """The cosine of a task's delta with what its bank gives back, at its own λ."""
    true = delta(tasks[name], base)
    changed = {name: value for name, value in true.items() if value.any()}
    back = delta(bank.retrieve(name), base)
    there = any(value.any() for value in (back[name] for name in changed))
    return cosine(changed, back) if changed and there else float(not changed)


def predicted(bank: Path) -> dict[str, float]:
    """What `inspect` says of every task."""
    with BankFile(bank) as opened:
        return {task.name: task.predicted_cosine for task in describe(opened).tasks}


@pytest.mark.parametrize("seed", range(200))
def test_the_predicted_cosine_is_the_true_one(packer: Packer, seed: int) -> None:
    source = np.random.default_rng(seed)
    models = Models(source, float(source.choice([0, 1, 2, 3, 6])))
    base, count = models.whole(), int(source.integers(1, 9))
    tasks = {f"t{n}": models.task() for n in range(count)}
    capacity = int(source.choice([0, 1, 16, 400])) or None
    options = PackOptions(
        Transform.from_preset(PRESETS[seed % len(PRESETS)]),
        bits=int(source.choice([16, 8])),
        groups=int(source.integers(1, 4)),
        capacity=capacity,
    )
    bank = packer.pack(base, tasks, options)
    with Bank.open(bank) as opened:
        for said in packer.reports[-1].tasks:
            found = came_back(opened, said.name, tasks, base)
            assert said.predicted_cosine == pytest.approx(found, abs=0.03)


def three(folder: Path) -> list[TaskInput]:
    """A base, a delta that rounds to nothing beside another, and that one."""
    models = Models(np.random.default_rng(1), 0.0)
    base = models.whole()
    save(base, folder / "base.safetensors")
    sizes = {"lost": 1e-5, "short": 1e-3, "long": 0.03}
    made = []
    for n, (name, size) in enumerate(sizes.items()):
        source = torch.Generator().manual_seed(n)
        state = {k: v + size * torch.randn(v.shape, generator=source) for k, v in base.items()}
        made.append(TaskInput(name, str(save(state, folder / f"{name}.safetensors"))))
    return made


def told(tasks: tuple[TaskSummary, ...]) -> dict[str, tuple[str, str]]:
    return {task.name: (f"{task.predicted_cosine:.3f}", task.lost) for task in tasks}


def inspected(bank: Path) -> dict[str, tuple[str, str]]:
    with BankFile(bank) as opened:
        return told(describe(opened).tasks)


def test_a_lost_delta_is_said_alike_by_every_command(tmp_path: Path) -> None:
    inputs, base = three(tmp_path), str(tmp_path / "base.safetensors")
    bank = tmp_path / "bank.randes"
    dry = pack(base, inputs, bank, run=ONE, dry_run=True)
    done = told(pack(base, inputs, bank, run=ONE).tasks)
    assert told(dry.tasks) == done == inspected(bank)
    assert verify(bank, run=ONE).lost == {name: text for name, (_, text) in done.items() if text}
    assert "in rounding" in done["lost"][1] and "bank of its own" in done["lost"][1]
    assert "longer ones" in done["short"][1]
    assert "of long: give these a group of their own" in done["short"][1]
    assert not done["long"][1] and all(number in text for number, text in done.values() if text)
    other = tmp_path / "other.randes"
    pack(base, inputs[1:], other, run=ONE)
    added = told(add(other, inputs[:1], run=ONE).after)
    assert "in rounding" in added["lost"][1] and added == inspected(other)


def sealed_bank(seed: int, folder: Path) -> tuple[list[float], list[float]]:
    """Predicted and true cosines of a random bank of few bits, of one kind of delta or of many."""
    source = np.random.default_rng(1000 + seed)
    kind = str(source.choice(KINDS)) if seed % 2 else None
    models = Models(source, float(source.choice([0, 1, 2, 3, 6])), kind)
    base, count = models.whole(), int(source.integers(1, 6))
    tasks = {f"t{n}": models.task() for n in range(count)}
    bits = (1, 2, 3, 4, 8)[seed % 5]
    options = PackOptions(
        Transform.from_preset(PRESETS[seed % len(PRESETS)]),
        bits=bits if bits < 8 else 16,
        groups=int(source.integers(1, 4)),
        share=int(source.choice([1, 1, 2, 4])),
    )
    inputs, out = Packer(folder).inputs(tasks), folder / "bank.randes"
    source_file = str(save(base, folder / "base.safetensors"))
    supposed = pack(source_file, inputs, out, options, ONE, force=True, dry_run=True).tasks
    said, bank = pack(source_file, inputs, out, options, ONE, force=True).tasks, out
    assert [one.predicted_cosine for one in supposed] == [one.predicted_cosine for one in said]
    if bits == 8:
        said = seal(bank, None, 8, ONE).after
    assert {one.name: one.predicted_cosine for one in said} == predicted(bank)
    with Bank.open(bank) as opened:
        found = [came_back(opened, one.name, tasks, base) for one in said]
    return [one.predicted_cosine for one in said], found


def test_predicted_cosines_of_sealed_banks_are_the_true_ones(tmp_path: Path) -> None:
    errors = []
    for seed in range(60):
        said, found = sealed_bank(seed, tmp_path)
        errors += [a - b for a, b in zip(said, found, strict=True)]
    assert max(errors) < 0.08 and min(errors) > -0.15
    assert np.mean(np.abs(errors)) < 0.01 and np.mean(np.array(errors) > 0.03) < 0.04


def test_a_sparse_delta_alone_is_predicted_as_it_comes_back_at_one_bit(tmp_path: Path) -> None:
    models = Models(np.random.default_rng(3), 0.0, "sparse")
    base, tasks = models.whole(), {"a": models.task()}
    packer = Packer(tmp_path)
    bank = packer.pack(base, tasks, PackOptions(bits=1))
    with Bank.open(bank) as opened:
        said, found = predicted(bank)["a"], came_back(opened, "a", tasks, base)
    assert said == pytest.approx(found, abs=0.005) and found < 0.6
    assert packer.reports[-1].tasks[0].predicted_cosine == said


def test_a_task_that_comes_back_as_the_base_has_cosine_0_whatever_points_its_way(
    tmp_path: Path,
) -> None:
    models = Models(np.random.default_rng(4), 0.0)
    base, far = models.whole(), models.whole()
    near = {name: value.clone() for name, value in base.items()}
    for name, value in models.common.items():
        far[name] += torch.from_numpy(value.astype(np.float32))
        near[name] += torch.from_numpy(1e-4 * value.astype(np.float32))  # rounds to nothing
    packer, tasks = Packer(tmp_path), {"far": far, "near": near}
    bank = packer.pack(base, tasks, "ta")
    (lost,) = (one for one in packer.reports[-1].tasks if one.coefficient == 0)
    assert lost.name == "near" and lost.predicted_cosine == 0 and "0.000" in lost.lost
    with Bank.open(bank) as opened:
        assert came_back(opened, "near", tasks, base) == 0 and predicted(bank)["near"] == 0
    originals = {"near": tmp_path / "near.safetensors"}
    (found,) = verify(bank, against=originals, run=ONE).against
    assert (found.cosine, found.predicted) == (0, 0)
