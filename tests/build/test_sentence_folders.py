"""Models of sentence-transformers whose encoder lies in a folder of its own, or at the root."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest
from safetensors.torch import load_file

from randes_cli import PackOptions, RunOptions, add, pack, remove, unpack
from randes_cli.errors import MismatchError
from randes_cli.read.places import UnpackOptions
from tests.checkpoints import State, perturbed, random_state, save

ONE = RunOptions(threads=1)
ENCODER = random_state({f"encoder.layer.{n}.dense.weight": [40, 60] for n in range(3)}, seed=1)
DENSE = random_state({"linear.weight": [8, 60], "linear.bias": [8]}, seed=2)


def sentences(folder: Path, root: str, dense: bool, seed: int) -> dict[str, State]:
    """Weights by folder, `root` being where the encoder lies."""
    parts = {root: perturbed(ENCODER, seed=seed)}
    if dense:
        parts["2_Dense"] = perturbed(DENSE, seed=seed)
    for name, state in parts.items():
        save(state, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"mine": f"{root} {seed}"}))
    (folder / "modules.json").write_text(json.dumps([{"path": name} for name in parts]))
    return parts


KINDS = [("", False), ("", True), ("0_Transformer", False), ("0_Transformer", True)]


@pytest.mark.parametrize(("base", "task"), list(permutations(KINDS, 2)))
def test_a_task_of_the_other_layout_comes_back_in_its_own(
    base: tuple[str, bool], task: tuple[str, bool], tmp_path: Path
) -> None:
    sentences(tmp_path / "base", *base, seed=1)
    wanted = sentences(tmp_path / "task", *task, seed=2)
    bank = tmp_path / "bank.randes"
    report = pack(tmp_path / "base", [tmp_path / "task"], bank, PackOptions(bits=16), ONE)
    alone = task == ("", False) and base[0] != ""
    assert any("alone" in note for note in report.tasks[0].notes) is alone
    kept = {n for names in report.kept_exactly.values() for n in names}
    assert kept == ({f"2_Dense/{n}" for n in DENSE} if task[1] and not base[1] else set())
    add(bank, {"again": tmp_path / "task"}, run=ONE)
    remove(bank, "again", run=ONE)
    unpack(bank, ["task"], tmp_path / "out", UnpackOptions(), ONE)
    files = {p.relative_to(tmp_path / "task") for p in (tmp_path / "task").rglob("*.*")}
    assert files == {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*")}
    for name, state in wanted.items():
        back = load_file(tmp_path / "out" / name / "model.safetensors")
        assert set(back) == set(state)
        assert all((back[key] - state[key]).abs().max() < 0.1 for key in state)


def test_a_whole_pipeline_is_no_task_of_the_small_part_that_the_base_is(tmp_path: Path) -> None:
    save(ENCODER, tmp_path / "base" / "model.safetensors")
    save(perturbed(ENCODER, seed=1), tmp_path / "task" / "text" / "model.safetensors")
    unet = random_state({f"down.{n}.weight": [200, 60] for n in range(2)}, seed=3)
    save(unet, tmp_path / "task" / "unet" / "model.safetensors")
    index = {"_class_name": "X", "text": ["a", "b"], "unet": ["a", "b"]}
    (tmp_path / "task" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(MismatchError, match="is it of another base"):
        pack(tmp_path / "base", [tmp_path / "task"], tmp_path / "bank.randes", run=ONE)
