"""A dry run says no where the run says no: with the same words, as far as its sample tells."""

from __future__ import annotations

import re

import pytest
import torch

from randes_cli import PackOptions, RunOptions, TaskInput, Transform, add, pack
from randes_cli.errors import CheckpointError, MismatchError, RandesError
from randes_cli.specs import EditOptions
from tests.checkpoints import Packer, State, perturbed, random_state, save

ONE = RunOptions(threads=1)
SHAPES = {"w": [48, 32], "head": [20, 32]}


def words(error: RandesError) -> str:
    """A message without its figures, which a sample may have smaller."""
    return re.sub(r"\(\d+ steps", "(steps", str(error))


@pytest.mark.parametrize("size", [1e37, 3e38])
def test_a_delta_beyond_every_grid(packer: Packer, size: float) -> None:
    base = random_state(SHAPES, seed=1)
    task = perturbed(base, seed=1)
    task["head"] = torch.where(base["head"] > 0, size, base["head"])
    said = []
    for dry in (True, False):
        packer.pack(base, {"a": perturbed(base, seed=2)})
        put = packer.inputs({"a": task})
        with pytest.raises(CheckpointError, match="'head': a task differs by more") as error:
            path = packer.folder / "base.safetensors"
            pack(path, put, packer.folder / "other.randes", run=ONE, dry_run=dry)
        said.append(words(error.value))
    assert said[0] == said[1] and "--exact" in said[0]


def test_a_task_with_values_that_are_none_is_listed_beside_others(packer: Packer) -> None:
    base = random_state(SHAPES, seed=1)
    tasks = {name: perturbed(base, seed=n) for n, name in enumerate("abc")}
    tasks["b"]["w"][3, 5] = torch.nan
    save(base, packer.folder / "base.safetensors")
    order = (packer.folder / "base.safetensors", packer.inputs(tasks), packer.folder / "x.randes")
    choices = PackOptions(), PackOptions(fit="2"), PackOptions(groups=3), PackOptions(exact="^w$")
    for options in choices:
        report = pack(*order, options, ONE, dry_run=True)
        assert [task.name for task in report.tasks] == ["a", "c"]
        assert [(one.name, one.exit_code) for one in report.refused] == [("b", 3)]
        with pytest.raises(CheckpointError, match="has NaN") as error:
            pack(*order, options, ONE)
        assert str(error.value) == report.refused[0].reason
    with pytest.raises(CheckpointError, match="has NaN"):
        pack(order[0], order[1][1:2], order[2], run=ONE, dry_run=True)


@pytest.mark.parametrize(("bits", "scale"), [(16, 20.0), (8, 1.0)])
def test_an_added_delta_beyond_the_range_of_its_sum(
    packer: Packer, bits: int, scale: float
) -> None:
    base = random_state(SHAPES, seed=1)
    bank = packer.pack(base, {"a": perturbed(base, seed=1)}, PackOptions(bits=bits))
    far: State = perturbed(base, seed=2, scale=scale)
    before, said = bank.read_bytes(), []
    for dry in (True, False):
        with pytest.raises(MismatchError, match=f"would overflow its {bits}-bit") as error:
            add(bank, packer.inputs({"b": far}), EditOptions(dry_run=dry), ONE)
        said.append(words(error.value))
    assert said[0] == said[1] and bank.read_bytes() == before


@pytest.mark.parametrize(("share", "gone"), [(1, ()), (4, ()), (1, ("b",))])
def test_deltas_that_fit_by_themselves_and_not_together(
    packer: Packer, share: int, gone: tuple[str, ...]
) -> None:
    base, transform = random_state(SHAPES, seed=1), Transform.from_preset("ta")
    one = perturbed(base, seed=1)
    options = PackOptions(transform, bits=8, capacity=1, share=share)
    bank = packer.pack(base, {"a": one, "b": perturbed(base, seed=2)}, options)
    before, said = bank.read_bytes(), []
    far = {name: base[name] + 12 * (one[name] - base[name]) for name in base}
    file = str(save(far, packer.folder / "far.safetensors"))
    puts = [TaskInput(gone[0] if gone else "c", file)]
    for dry in (True, False):
        with pytest.raises(MismatchError, match="would overflow its 8-bit") as error:
            add(bank, puts, EditOptions(dry_run=dry), ONE, replace=bool(gone))
        said.append(words(error.value))
    assert said[0] == said[1] and bank.read_bytes() == before


def family() -> tuple[State, dict[str, State]]:
    """A base and tasks with tensors of their own, some of which are one; all have `own`."""
    base = random_state({**SHAPES, "embed.weight": [48, 32]}, seed=1)
    own = torch.arange(50)
    moved, grown = perturbed(base, seed=1), torch.cat([base["embed.weight"], base["w"][:3]])
    one = {**moved, "own": own}
    made = {
        "a": one,
        "b": one,
        "c": {**one, "own": own + 1},
        "d": moved,
        "e": {**base, "own": own},
        "f": {**base, "own": own},
        "g": base,
        "h": {**one, "embed.weight": grown},
        "i": {**one, "embed.weight": torch.cat([base["embed.weight"], base["w"][3:6]])},
        "j": {**one, "embed.weight": grown},
    }
    return base, made


def told(notes: tuple[str, ...]) -> set[str]:
    """What notes say of tasks that are one, without how they know."""
    return {re.sub(", (to the byte|by a sample of each tensor)$", "", note) for note in notes}


def test_a_dry_run_says_which_tasks_are_one_also_of_those_that_keep_tensors(packer: Packer) -> None:
    base, tasks = family()
    named = packer.inputs(tasks)
    bank = packer.pack(base, {name: tasks[name] for name in "aeh"})
    source, whole = packer.folder / "base.safetensors", packer.folder / "whole.randes"
    some = [task for task in named if task.name in "bcdfgij"]
    said = [
        pack(source, named, whole, run=ONE, dry_run=True).notes,
        pack(source, named, whole, run=ONE).notes,
        add(bank, some, EditOptions(dry_run=True), ONE).notes,
        add(bank, some, EditOptions(), ONE).notes,
    ]
    ones = {f"{pair}: one checkpoint" for pair in ("a, b", "e, f", "h, j")}
    assert list(map(told, said)) == [{*ones, "g: the base itself"}] * 4


@pytest.mark.parametrize(("column", "size", "fits"), [(0, 100, 0), (1, 100, 1), (1, 10_000, 0)])
def test_a_share_s_sum_that_is_stored_must_fit_8_bits_and_all_of_it_16(
    packer: Packer, column: int, size: float, fits: int
) -> None:
    base, far = {"w": torch.zeros(64, 64)}, torch.zeros(64, 64)
    options = PackOptions(transform=Transform.from_preset("ta"), bits=8, share=2)
    bank = packer.pack(base, {"a": {"w": torch.ones(64, 64)}}, options)
    far[0, column] = size
    tasks, said = packer.inputs({"b": {"w": far}, "c": {"w": far}}), []
    for dry in (True, False):
        try:
            add(bank, tasks, EditOptions(dry_run=dry), ONE)
        except MismatchError as error:
            said.append(str(error))
    assert len(set(said)) == 1 - fits and len(said) == 2 - 2 * fits
