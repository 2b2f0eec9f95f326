"""`pack --from` and `inspect --recipe`: a bank is made again from what it says of itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as torch_file

from tests.cli.conftest import Result

Run = Callable[..., Result]
_IN_SHARDS = r"^# the bank is in shards: say (--max-shard-size \d+), too$"
PLAIN = ["base.safetensors", "x=a.safetensors", "y=b.safetensors@1", "z=c.safetensors@0"]


@pytest.fixture(autouse=True)
def here(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(family)


def printed(randes: Run, bank: str, *words: str) -> Path:
    found = randes("inspect", bank, "--recipe", *words)
    assert found.code == 0, found.err
    path = Path("recipe.yaml")
    path.write_text(found.out, "utf-8")
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["--groups", "2"],
        ["--groups", "2", "--bits", "2"],
        ["--groups", "2", "--bits", "1/4"],
        ["--groups", "2", "--share", "1/2", "--seed", "7"],
        ["--groups", "3", "--bits", "8", "--capacity", "50", "--base", "reference"],
        ["--groups", "2", "--transform", "srsf", "--targets", "wte.*", "--rest", "own"],
        ["--groups", "2", "--exact", r"^h\.[01]|norm"],
        ["--groups", "2", "--shuffle", "shift", "--signs", "hankel", "--every", "2"],
    ],
)
def test_a_bank_packed_from_its_own_recipe_has_equal_bytes(options: list[str], randes: Run) -> None:
    assert randes("pack", *PLAIN, "-o", "one.randes", *options).code == 0
    recipe = printed(randes, "one.randes")
    again = randes("pack", "--from", recipe, "-o", "two.randes")
    assert again.code == 0, again.err
    assert Path("one.randes").read_bytes() == Path("two.randes").read_bytes()


def test_what_was_allowed_for_the_base_alone_is_in_the_recipe(randes: Run) -> None:
    Path("model").mkdir()
    torch.save({"ema": torch_file("base.safetensors")}, "model/pytorch_model.bin")
    Path("model/modeling_x.py").write_text("print()")
    options = ["--allow-pickle", "--weights-key", "ema", "--trust-remote-code-files"]
    assert randes("pack", "model", "x=a.safetensors", "-o", "one.randes", *options).code == 0
    recipe = printed(randes, "one.randes")
    again = randes("pack", "--from", recipe, "-o", "two.randes")
    assert again.code == 0, again.err
    assert Path("one.randes").read_bytes() == Path("two.randes").read_bytes()


def test_of_a_bank_in_shards_the_recipe_says_their_size_beside_it(randes: Run) -> None:
    assert randes("pack", *PLAIN, "-o", "one.randes", "--max-shard-size", "20KB").code == 0
    recipe = printed(randes, "one.randes")
    (size,) = re.findall(_IN_SHARDS, recipe.read_text("utf-8"), re.M)
    assert randes("pack", "--from", recipe, "-o", "two.randes", *size.split()).code == 0
    assert Path("one.randes").read_bytes() == Path("two.randes").read_bytes()


def test_an_edited_bank_is_made_again_with_its_steps(randes: Run) -> None:
    assert randes("pack", *PLAIN[:3], "-o", "one.randes", "--groups", "2").code == 0
    assert randes("add", "one.randes", "z=c.safetensors", "-q").code == 0
    assert randes("remove", "one.randes", "x", "-q").code == 0
    recipe = printed(randes, "one.randes", "--full")
    assert "index: 2" in recipe.read_text()
    assert randes("pack", "--from", recipe, "-o", "two.randes").code == 0
    assert parts("one.randes") == parts("two.randes")


def parts(bank: str) -> dict[str, bytes]:
    """What a bank holds. The room that an edit leaves in the header changes the header's digest."""
    tensors = load_file(bank)
    return {key: value.tobytes() for key, value in tensors.items() if key != "checks"}


def test_the_command_line_wins_over_the_recipe(randes: Run) -> None:
    assert randes("pack", *PLAIN, "-o", "one.randes", "--groups", "2", "--bits", "8").code == 0
    recipe = printed(randes, "one.randes")
    given = ["--bits", "16", "--seed", "9", "--groups", "2"]
    assert randes("pack", "--from", recipe, "-o", "two.randes", *given).code == 0
    assert randes("pack", *PLAIN, "-o", "three.randes", "--capacity", "16", *given).code == 0
    assert Path("two.randes").read_bytes() == Path("three.randes").read_bytes()


def test_a_recipe_names_base_and_tasks_alone(randes: Run) -> None:
    Path("r.yaml").write_text("base: base.safetensors\ntasks: {x: a.safetensors}\n")
    refused = randes("pack", "base.safetensors", "--from", "r.yaml", "-o", "x.randes")
    assert (refused.code, "leave them out here" in refused.err) == (2, True)
    refused = randes("pack", "-o", "x.randes")
    assert (refused.code, "or --from RECIPE" in refused.err) == (2, True)


def test_a_bank_says_what_its_recipe_cannot(randes: Run) -> None:
    assert randes("pack", *PLAIN, "-o", "one.randes", "--groups", "2").code == 0
    assert randes("remove", "one.randes", "y", "--forget", "-q").code == 0
    assert randes("seal", "one.randes", "--bits", "4", "--in-place", "-q").code == 0
    Path("score.sh").write_text("echo 0.5\n")
    words = ["--evaluate", "sh score.sh {checkpoint} {task}", "--grid", "0.5,1", "-q"]
    assert randes("tune", "one.randes", *words).code == 0
    lines = printed(randes, "one.randes").read_text().splitlines()
    notes = [line for line in lines if line.startswith("#")]
    assert any("forgotten" in line for line in notes) and any("tune" in line for line in notes)
    assert "  bits: 4" in lines


def test_a_recipe_of_a_bank_elsewhere_names_its_models_as_seen_from_here(
    family: Path, randes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert randes("pack", *PLAIN, "-o", "one.randes", "--groups", "2").code == 0
    for folder in (family / "deep" / "er", family.parent):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        recipe = printed(randes, str(family / "one.randes"))
        (family / "saved.yaml").write_text(recipe.read_text())
        for saved in (recipe, family / "saved.yaml"):
            again = randes("pack", "--from", saved, "-o", family / "two.randes", "--force")
            assert again.code == 0, again.err
        assert (family / "one.randes").read_bytes() == (family / "two.randes").read_bytes()


def test_a_recipe_says_which_models_it_does_not_find(family: Path, randes: Run) -> None:
    (family / "banks").mkdir()
    bank = family / "banks" / "one.randes"
    assert randes("pack", *PLAIN[:3], "-o", bank, "--groups", "2").code == 0
    text = randes("inspect", bank, "--recipe").out
    assert "# not beside the bank, so write where they are: the base, x, y\n" in text
    assert "\nbase: base.safetensors\n" in text


def test_a_recipe_in_a_pipe_is_read_and_not_waited_for(family: Path, randes: Run) -> None:
    os.mkfifo("recipe")
    refused = randes("pack", "--from", "recipe", "-o", "n.randes")
    assert (refused.code, "recipe: empty" in refused.err) == (2, True)
    recipe = f"base: {family / 'base.safetensors'}\ntasks: [{family / 'a.safetensors'}]\n"
    writer = Thread(target=Path("recipe").write_text, args=(recipe,))
    writer.start()
    assert randes("pack", "--from", "recipe", "-o", "n.randes").code == 0
    writer.join()


def test_an_index_that_is_a_pipe_is_not_waited_for(family: Path, randes: Run) -> None:
    folder = family / "model"
    folder.mkdir()
    os.mkfifo(folder / "model.safetensors.index.json")
    refused = randes("pack", family / "base.safetensors", folder, "-o", "n.randes")
    assert (refused.code, "not a regular file" in refused.err) == (3, True)
