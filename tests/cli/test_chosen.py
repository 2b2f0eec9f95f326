"""Options that were given are carried out or refused: --fit and --keep beside what they choose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from randes_cli import PackOptions, TaskInput, pack
from randes_cli.errors import UsageError
from randes_cli.files.recipe.recipe import Recipe
from tests.cli.conftest import Result

Run = Callable[..., Result]
PLAIN = ["pack", "base.safetensors", "a.safetensors", "b.safetensors", "-o", "x.randes"]
RECIPE = "base: base.safetensors\ntasks: {x: a.safetensors, y: b.safetensors}\noptions: "


@pytest.fixture(autouse=True)
def here(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(family)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--keep 99% --groups 3 --bits 8", ["--keep", "--bits and --groups"]),
        ("--fit 2.0 --bits 16", ["--fit", "--bits"]),
        ("--fit 2.0 --bits 1/4", ["--fit", "--bits"]),
        ("--fit 2.0 --share 1/2", ["--fit", "--share"]),
    ],
)
def test_fit_and_keep_refuse_what_they_choose_and_name_both_options(
    line: str, said: list[str], randes: Run
) -> None:
    refused = randes(*PLAIN, *line.split())
    assert refused.code == 2 and all(words in refused.err for words in said)
    assert not Path("x.randes").exists()


@pytest.mark.parametrize("chosen", [{"bits": 8}, {"groups": 2}, {"share": 4}])
@pytest.mark.parametrize("chooser", [{"fit": "1.5"}, {"keep": "99%"}])
def test_options_in_python_refuse_them_too(chooser: dict[str, Any], chosen: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(chooser))}.*--{next(iter(chosen))}"):
        PackOptions(**chooser, **chosen)


def test_a_recipe_with_both_is_refused_and_the_command_line_wins_over_a_recipe(
    randes: Run,
) -> None:
    recipe = Path("r.yaml")
    recipe.write_text(RECIPE + "{keep: 99%, bits: 16}\n")
    with pytest.raises(UsageError, match=r"r\.yaml:3: --keep .* --bits"):
        Recipe.read(recipe)
    for options, words in (
        ("{groups: 2, bits: 8}", ["--fit", "3.0"]),
        ("{keep: 80%}", ["--fit", "3.0"]),
        ("{fit: 1.0}", ["--bits", "16", "--groups", "2"]),
    ):
        recipe.write_text(RECIPE + options + "\n")
        made = randes("pack", "--from", recipe, "-o", "y.randes", "--force", *words)
        named = ["x=a.safetensors", "y=b.safetensors", "-o", "z.randes", "--force"]
        assert (made.code, randes("pack", "base.safetensors", *named, *words).code) == (0, 0)
        assert Path("y.randes").read_bytes() == Path("z.randes").read_bytes()


def test_a_group_beyond_the_groups_that_were_asked_for_is_refused(randes: Run) -> None:
    tasks = ["pack", "base.safetensors", "a.safetensors@1", "b.safetensors@0", "-o", "x.randes"]
    refused = randes(*tasks, "--groups", 1)
    assert (refused.code, "a@1: --groups 1 makes one group, 0" in refused.err) == (2, True)
    assert randes(*tasks).code == 0
    assert randes(*tasks, "--groups", 2, "--force").code == 0
    with pytest.raises(UsageError, match="a@2: --groups 2 makes groups 0 to 1"):
        inputs = [TaskInput("a", "a.safetensors", group=2)]
        pack("base.safetensors", inputs, "y.randes", PackOptions(groups=2))
    Path("r.yaml").write_text(
        "base: base.safetensors\ntasks: {x: {source: a.safetensors, group: 1}}\n"
        "options: {groups: 1}\n"
    )
    with pytest.raises(UsageError, match="x@1: --groups 1"):
        Recipe.read("r.yaml")
