"""`pack --exact REGEX`: tensors that a bank keeps exactly because somebody said so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.checkpoints import save_family
from tests.cli.conftest import Result

SHAPES = {"body.weight": [64, 48], "head.weight": [10, 48], "head.bias": [10], "norm": [48]}


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, list[Path]]:
    tasks = save_family(tmp_path, SHAPES, ["t0", "t1", "t2"], seed=1)
    return tmp_path / "base.safetensors", tasks


def test_what_was_asked_comes_back_to_the_bit_and_the_rest_does_not(
    inputs: tuple[Path, list[Path]], tmp_path: Path, randes: Callable[..., Result]
) -> None:
    base, tasks = inputs
    bank, out = tmp_path / "bank.randes", tmp_path / "out.safetensors"
    report = randes("pack", base, *tasks, "-o", bank, "--exact", "^head", "--json").json
    kept = {"head.weight": "as asked (--exact)", "head.bias": "as asked (--exact)"}
    assert report["kept_exactly"]["t1"] == kept
    assert [task["own"] for task in report["tasks"]] == [2, 2, 2]
    randes("unpack", bank, "--task", "t1", "-o", out)
    found, true = load_file(out), load_file(tasks[1])
    for name in SHAPES:
        assert np.array_equal(found[name], true[name]) == (name in kept), name


def test_tasks_that_are_added_later_keep_the_same_tensors(
    inputs: tuple[Path, list[Path]], tmp_path: Path, randes: Callable[..., Result]
) -> None:
    base, tasks = inputs
    bank, whole = tmp_path / "bank.randes", tmp_path / "whole.randes"
    randes("pack", base, *tasks[:2], "-o", bank, "--exact", "head", "--seed", 7)
    randes("add", bank, tasks[2])
    out = tmp_path / "out.safetensors"
    randes("unpack", bank, "--task", "t2", "-o", out)
    assert np.array_equal(load_file(out)["head.weight"], load_file(tasks[2])["head.weight"])
    recipe = randes("inspect", bank, "--recipe").out
    (tmp_path / "recipe.yaml").write_text(recipe, "utf-8")
    randes("pack", "--from", tmp_path / "recipe.yaml", "-o", whole)
    names = randes("inspect", whole, "--manifest").json["transform"]["exact"]
    assert sorted(names) == ["head.bias", "head.weight"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("nothing", "no tensor of the base has such a name"), ("(", "not a regular expression")],
)
def test_a_pattern_that_finds_nothing_is_refused(
    inputs: tuple[Path, list[Path]],
    tmp_path: Path,
    randes: Callable[..., Result],
    pattern: str,
    words: str,
) -> None:
    base, tasks = inputs
    made = randes("pack", base, *tasks, "-o", tmp_path / "b.randes", "--exact", pattern)
    assert made.code == 2 and re.search(words, made.err)
    assert not (tmp_path / "b.randes").exists()
