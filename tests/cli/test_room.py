"""How wide a superposition is and how many more tasks it has room for, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoints import perturbed, random_state, save
from tests.cli.conftest import Result


def test_the_command_line_says_how_wide_and_how_much_room(
    tmp_path: Path, randes: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = random_state({"h.0.w": [48, 64], "norm": [64]}, dtype=torch.bfloat16)
    save(base, tmp_path / "base.safetensors")
    tasks = [save(perturbed(base, seed=n), tmp_path / f"t{n}.safetensors") for n in range(3)]
    monkeypatch.chdir(tmp_path)  # a recipe's paths are relative to where it is made
    bank = tmp_path / "bank.randes"
    said = randes("pack", tmp_path / "base.safetensors", *tasks[:2], "-o", bank)
    line = "superpositions of 8 bits have room for 14 more tasks like these"
    assert said.code == 0
    assert line in said.out + said.err
    assert randes("inspect", bank, "--json").json["room"] == 14
    assert "room       for 14 more tasks like these" in randes("inspect", bank).out
    (tmp_path / "r.yaml").write_text(randes("inspect", bank, "--recipe").out)
    assert randes("pack", "--from", tmp_path / "r.yaml", "-o", tmp_path / "a.randes").code == 0
    assert (tmp_path / "a.randes").read_bytes() == bank.read_bytes()
    assert "room for 13 more tasks" in randes("add", bank, tasks[2]).out
    assert randes("remove", bank, "t2", "--forget").code == 0
    assert randes("inspect", bank, "--json").json["room"] == 13  # its delta is there
    assert randes("seal", bank, "--bits", 8, "--in-place").code == 0
    assert randes("inspect", bank, "--json").json["room"] is None
    assert randes("add", bank, tasks[2], "--json").json["room"] == 15  # of a new group
    words = ["pack", tmp_path / "base.safetensors", *tasks[:2], "-o", bank, "--force"]
    assert randes(*words, "--capacity", "2", "--json").json["room"] == 0
    assert "for no more: the next may be refused" in randes("inspect", bank).out
