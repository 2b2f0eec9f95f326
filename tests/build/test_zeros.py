"""A copy that was cut off or damaged has zeros in the place of values: pack and add say so."""

from __future__ import annotations

from pathlib import Path

import torch

from randes_cli import EditOptions, PackOptions, RunOptions, TaskInput, pack
from randes_cli.build.edit import add
from tests.checkpoints import perturbed, random_state, save, save_sharded

ONE = RunOptions(threads=1)
SAID = "zeros where the base has values"


def cut(path: Path, share: float) -> None:
    """Fill the end of a file with zeros."""
    data = path.read_bytes()
    kept = int(len(data) * share)
    path.write_bytes(data[:kept] + bytes(len(data) - kept))


def test_a_file_that_ends_in_zeros_is_told_of(tmp_path: Path) -> None:
    base = random_state({f"layers.{n}.weight": [48, 48] for n in range(4)})
    first = save(base, tmp_path / "base.safetensors")
    for name, share in (("whole", 1.0), ("half", 0.5), ("late", 0.9)):
        cut(save(perturbed(base, seed=len(name)), tmp_path / f"{name}.safetensors"), share)
    shards = save_sharded(perturbed(base, seed=9), tmp_path / "shards")
    cut(shards / "model-00001-of-00002.safetensors", 0.7)
    tasks = [TaskInput(n, str(tmp_path / f"{n}.safetensors")) for n in ("whole", "half", "late")]
    tasks.append(TaskInput("shards", str(shards)))
    bank = tmp_path / "b.randes"
    report = pack(str(first), tasks, bank, PackOptions(), ONE)
    said = {task.name: " ".join(task.notes) for task in report.tasks}
    assert SAID not in said["whole"]
    assert f"{SAID} (layers.3.weight, layers.2.weight)" in said["half"]
    assert f"{SAID} (layers.3.weight)" in said["late"]
    assert f"{SAID} (layers.2.weight)" in said["shards"]
    added = add(bank, [TaskInput("again", tasks[1].source)], EditOptions(), ONE)
    assert any(SAID in note for task in added.after for note in task.notes)


def test_zeros_that_the_base_has_too_and_masks_are_none_of_that(tmp_path: Path) -> None:
    base = random_state({"a.weight": [64, 64]}) | {"b.weight": torch.zeros(64, 64)}
    base["mask"] = torch.ones(8, 8, dtype=torch.bool)
    first = save(base, tmp_path / "base.safetensors")
    task = save(
        perturbed({"a.weight": base["a.weight"]}, seed=1)
        | {"b.weight": base["b.weight"], "mask": torch.zeros(8, 8, dtype=torch.bool)},
        tmp_path / "t.safetensors",
    )
    report = pack(
        str(first), [TaskInput("t", str(task))], tmp_path / "b.randes", PackOptions(), ONE
    )
    assert not any(SAID in note for note in report.tasks[0].notes)


def test_matrices_of_zeros_in_the_middle_of_a_file_are_told_of(tmp_path: Path) -> None:
    base = random_state({"a.weight": [64, 64], "b.weight": [64, 64], "c.weight": [64, 64]})
    first = save(base, tmp_path / "base.safetensors")
    task = perturbed(base, seed=1) | {"b.weight": torch.zeros(64, 64)}
    path = save(task, tmp_path / "t.safetensors")
    bank = tmp_path / "b.randes"
    report = pack(str(first), [TaskInput("t", str(path))], bank, PackOptions(), ONE)
    assert any(f"{SAID} (b.weight)" in note for note in report.tasks[0].notes)
