"""Groups: superpositions side by side. The oracle of one group is a bank of its tasks alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, Transform, pack, verify
from randes_cli.build.edit import add, remove
from randes_cli.errors import UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.recipe.words import task_input
from randes_cli.ops.describe import describe
from randes_cli.ops.measure import measure
from randes_cli.plan import STEP_SAMPLE, sample_runs
from randes_cli.specs import EditOptions
from randes_cli.stats.stored import stored_statistics
from randes_cli.stats.summaries import summaries
from tests.checkpoints import (
    Packer,
    layered_shapes,
    random_state,
    retrieve,
    same_bits,
    save_family,
)

ONE = RunOptions(threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_family(tmp_path, layered_shapes(), [f"t{n}" for n in range(5)], seed=1)
    return tmp_path


def inputs(folder: Path, numbers: list[int], groups: list[int] | None = None) -> list[TaskInput]:
    return [
        TaskInput(f"t{n}", str(folder / f"t{n}.safetensors"), n, groups[at] if groups else None)
        for at, n in enumerate(numbers)
    ]


def packed(
    folder: Path,
    numbers: list[int],
    name: str,
    groups: int = 1,
    wanted: list[int] | None = None,
    run: RunOptions = ONE,
    preset: str = "srsf",
) -> Path:
    steps = steps_of(folder / "all.randes") if (folder / "all.randes").exists() else {}
    options = PackOptions(Transform.from_preset(preset), groups=groups, steps=steps)
    base, out = str(folder / "base.safetensors"), folder / name
    pack(base, inputs(folder, numbers, wanted), out, options, run, force=True)
    return out


def steps_of(bank: Path) -> dict[str, int]:
    with BankFile(bank) as file:
        return dict(file.manifest.steps)


def sums(bank: Path, group: int) -> dict[str, bytes]:
    with BankFile(bank) as file:
        prefix = f"sum/{group}/"
        keys = [key for key in file.header.tensors if key.startswith(prefix)]
        return {key.removeprefix(prefix): file.read_whole(key).tobytes() for key in keys}


@pytest.mark.parametrize("preset", ["two-sided", "hankel", "srsf", "shift"])
def test_each_group_is_the_superposition_of_its_tasks_alone(folder: Path, preset: str) -> None:
    packed(folder, [0, 1, 2, 3, 4], "all.randes", preset=preset)
    bank = packed(folder, [0, 1, 2, 3, 4], "two.randes", groups=2, preset=preset)
    assert sums(bank, 0) == sums(packed(folder, [0, 2, 4], "even.randes", preset=preset), 0)
    assert sums(bank, 1) == sums(packed(folder, [1, 3], "odd.randes", preset=preset), 0)


def test_a_task_comes_back_as_from_a_bank_of_its_group_alone(folder: Path) -> None:
    packed(folder, [0, 1, 2, 3, 4], "all.randes")
    bank = packed(folder, [0, 1, 2, 3, 4], "two.randes", groups=2)
    alone = packed(folder, [1, 3], "odd.randes")
    with Bank.open(bank) as ours, Bank.open(alone) as theirs:
        for name in ("t1", "t3"):
            found, wanted = ours.retrieve(name), theirs.retrieve(name)
            assert all(same_bits(found[key], wanted[key]) for key in wanted)


def test_as_many_groups_as_tasks_leave_only_the_rounding(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2], "three.randes", groups=3)
    with BankFile(bank) as file:
        checks = measure(file, {"t1": str(folder / "t1.safetensors")}, ONE)
    assert checks[0].cosine > 0.9999
    assert checks[0].predicted == pytest.approx(checks[0].cosine, abs=1e-6)


def test_bytes_do_not_depend_on_threads_or_strips(folder: Path) -> None:
    plain = packed(folder, [0, 1, 2], "plain.randes", groups=2).read_bytes()
    for run in (RunOptions(threads=3), RunOptions(threads=1, strip_elements=7)):
        assert packed(folder, [0, 1, 2], "other.randes", groups=2, run=run).read_bytes() == plain


def test_predictions_count_the_tasks_of_the_own_group_alone(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2, 3, 4], "two.randes", groups=2, preset="hankel")
    with BankFile(bank) as file:
        found = {task.name: task for task in summaries(file.manifest, stored_statistics(file))}
        report = describe(file)
    assert found["t1"].predicted_cosine == pytest.approx(2**-0.5, rel=0.15)
    assert found["t0"].predicted_cosine == pytest.approx(3**-0.5, rel=0.15)
    assert [task.group for task in report.tasks] == [0, 1, 0, 1, 0]
    during = np.array(report.cosine_during)
    assert during[0, 1] == 0 and during[0, 2] != 0


def test_a_named_group_is_obeyed_and_makes_room(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2], "named.randes", wanted=[0, 2, 2])
    with BankFile(bank) as file:
        assert file.manifest.groups == 3
        assert [task.group for task in file.manifest.tasks] == [0, 2, 2]
    assert not sums(bank, 1)


def test_add_takes_the_emptiest_group_and_remove_restores_it(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2], "bank.randes", groups=2)
    before = sums(bank, 0), sums(bank, 1)
    added = [TaskInput("t3", str(folder / "t3.safetensors"))]
    add(bank, added, EditOptions(), ONE)
    with BankFile(bank) as file:
        assert [task.group for task in file.manifest.tasks] == [0, 1, 0, 1]
    assert sums(bank, 0) == before[0] and sums(bank, 1) != before[1]
    remove(bank, ["t3"], EditOptions(), ONE)
    assert (sums(bank, 0), sums(bank, 1)) == before


def test_add_obeys_a_named_group_and_refuses_one_that_is_not_there(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2], "bank.randes", groups=2)
    source = str(folder / "t3.safetensors")
    add(bank, [TaskInput("t3", source, group=0)], EditOptions(), ONE)
    with BankFile(bank) as file:
        assert file.manifest.tasks[-1].group == 0
    with pytest.raises(UsageError, match="has groups 0 to 1"):
        add(bank, [TaskInput("t4", source, group=2)], EditOptions(), ONE)


def test_removing_the_last_task_of_a_group_drops_its_superposition(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2], "bank.randes", groups=2)
    kept = sums(bank, 0)
    remove(bank, ["t1"], EditOptions(), ONE)
    assert (sums(bank, 0), sums(bank, 1)) == (kept, {})
    remove(bank, ["t0", "t2"], EditOptions(), ONE)
    assert not sums(bank, 0)


def test_removing_from_two_groups_at_once_empties_one_and_subtracts_from_the_other(
    folder: Path,
) -> None:
    packed(folder, [0, 1, 2], "all.randes")
    bank = packed(folder, [0, 1, 2], "bank.randes", groups=2)
    remove(bank, ["t0", "t1"], EditOptions(), ONE)
    assert sums(bank, 1) == {}
    assert sums(bank, 0) == sums(packed(folder, [2], "alone.randes"), 0)


def test_norms_after_an_edit_are_those_of_packing_at_once(folder: Path) -> None:
    bank = packed(folder, [0, 1, 2], "bank.randes", groups=2)
    add(bank, [TaskInput("t3", str(folder / "t3.safetensors"), group=1)], EditOptions(), ONE)
    with BankFile(bank) as file:
        edited = stored_statistics(file)
    options = PackOptions(Transform.from_preset("srsf"), groups=2, steps=steps_of(bank))
    at_once = folder / "once.randes"
    pack(str(folder / "base.safetensors"), inputs(folder, [0, 1, 2, 3]), at_once, options, ONE)
    with BankFile(at_once) as file:
        whole = stored_statistics(file)
    assert np.array_equal(edited.known.norms, whole.known.norms)
    assert np.array_equal(edited.grams, whole.grams)


def test_a_group_in_a_task_word_is_told_from_a_hub_revision(folder: Path) -> None:
    path = str(folder / "t1.safetensors")
    assert task_input(f"x={path}@3") == TaskInput("x", path, group=3)
    assert task_input(f"{path}@0") == TaskInput("t1", path, group=0)
    assert task_input("x=org/model@3").group is None
    assert task_input("x=org/model@main@3") == TaskInput("x", "org/model@main", group=3)
    torch.save({}, f"{path}@9")
    assert task_input(f"x={path}@9") == TaskInput("x", f"{path}@9")


def test_a_snapshot_in_the_hubs_cache_is_named_after_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "01e310e50d87bcb068fec45f86682c175c00f1c5"
    snapshot = tmp_path / "hub" / "models--lab--sea-lion.v2" / "snapshots" / commit
    alone = tmp_path / commit
    for folder in (snapshot, alone):
        folder.mkdir(parents=True)
    assert task_input(str(snapshot)) == TaskInput("sea-lion.v2", str(snapshot))
    assert task_input(f"{snapshot}/@2") == TaskInput("sea-lion.v2", f"{snapshot}/", group=2)
    assert task_input(f"x={snapshot}").name == "x"
    assert task_input(str(snapshot / "model.safetensors")).name == "model"
    assert task_input(str(alone)).name == commit
    monkeypatch.chdir(snapshot)
    assert task_input(".").name == "sea-lion.v2"


@pytest.mark.parametrize("bits", [16, 2])
def test_a_change_that_no_sample_showed_gets_a_sum_in_its_group_alone(
    packer: Packer, bits: int
) -> None:
    """One element of a tensor that the other group's task does not have."""
    base = random_state({"large": [400, 300], "w": [500, 300]})
    looked = {n for run in sample_runs(400, 300, STEP_SAMPLE) for n in range(*run.rows)}
    one = {**base, "large": base["large"].clone()}
    one["large"][next(n for n in range(400) if n not in looked), 5] += 1
    tasks = {"one": one, "two": {"w": base["w"] + 0.01}}
    bank = packer.pack(base, tasks, PackOptions(bits=bits, groups=2))
    with BankFile(bank) as file:
        sums = [key for key in file.header.tensors if key.startswith("sum/")]
        assert {"sum/0/large", "sum/1/w"} <= {*sums} and "sum/1/large" not in sums
    assert verify(bank, run=ONE).sound
    assert bits < 16 or same_bits(retrieve(bank, "one")["large"], one["large"])
