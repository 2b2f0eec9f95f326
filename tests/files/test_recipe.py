"""Recipes: what they say becomes tasks and options, and what is wrong has a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from randes_cli import PackOptions, Recipe, TaskInput, Transform
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.recipe.recipe import OPTIONS, options_of
from randes_cli.specs import BaseStorage, OpenOptions, Rest, Shuffle, Signs

WHOLE = """\
base: base.safetensors
tasks:
  cars: a.safetensors
  dtd: {source: sub/b.safetensors, group: 1}
  hub: org/name@main
  "no": a.safetensors@1
options:
  groups: 2
  bits: 1/4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("base", "a", "sub/b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def test_paths_start_in_the_recipes_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.read(write(folder, WHOLE))
    a, b = str(folder / "a.safetensors"), str(folder / "sub/b.safetensors")
    assert recipe.base == str(folder / "base.safetensors")
    assert recipe.tasks == (
        TaskInput("cars", a),
        TaskInput("dtd", b, group=1),
        TaskInput("hub", "org/name@main"),
        TaskInput("no", a, group=1),
    )
    assert recipe.options == PackOptions(groups=2, bits=1, share=4)
    monkeypatch.chdir(folder)
    assert Recipe.read("recipe.yaml").tasks[0].source == "a.safetensors"


def test_json_is_a_recipe_and_so_is_a_list_of_tasks(folder: Path) -> None:
    text = {"base": "base.safetensors", "tasks": ["a.safetensors", "x=sub/b.safetensors@3"]}
    recipe = Recipe.read(write(folder, json.dumps(text)))
    assert [(task.name, task.group) for task in recipe.tasks] == [("a", None), ("x", 3)]
    assert recipe.options == PackOptions()


def test_every_option_means_what_it_means_on_the_command_line(folder: Path) -> None:
    words = {
        "transform": "srsf",
        "signs": "hankel",
        "bits": 8,
        "share": "1/2",
        "groups": 3,
        "seed": 7,
        "capacity": 40,
        "targets": "attn",
        "every": 2,
        "rest": "own",
        "exact": "^head",
        "base": "reference",
        "merge-adapters": True,
        "allow-pickle": True,
        "weights-key": "ema",
        "trust-remote-code-files": True,
        "safetensors-only": True,
        "steps": {"w": -9},
        "widths": {"w": 16},
    }
    text = {"base": "base.safetensors", "tasks": ["a.safetensors"], "options": words}
    assert Recipe.read(write(folder, json.dumps(text))).options == PackOptions(
        Transform(Shuffle.random, Signs.hankel, "attn", 2, Rest.own),
        bits=8,
        share=2,
        seed=7,
        groups=3,
        exact="^head",
        capacity=40,
        base_storage=BaseStorage.reference,
        steps={"w": -9},
        widths={"w": 16},
        merge_adapters=True,
        opening=OpenOptions(True, True, True, "ema"),
    )
    assert options_of({}) == PackOptions()
    assert options_of({"fit": 1.1}).fit == "1.1"
    alone = {"shuffle": "none", "adapters": True, "fit": "1MB", "keep": "99%"}
    assert set(OPTIONS) == {*words, *alone}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("groups: 2", "grups: 2", "recipe.yaml:8: unknown option 'grups' (did you mean groups?)"),
        ("groups: 2", "xyzzy: 2", "recipe.yaml:8: unknown option 'xyzzy' (known are transform, "),
        ("tasks:", "task:", "recipe.yaml:2: unknown section 'task' (did you mean tasks?)"),
        ("group: 1", "grp: 1", "recipe.yaml:4: unknown field of task dtd 'grp' (did you mean gro"),
        ("group: 1", "group: one", "recipe.yaml:4: dtd: its group must be a whole number"),
        ("source: sub/b", "sauce: sub/b", "recipe.yaml:4: unknown field of task dtd 'sauce' (did"),
        ("groups: 2", "groups: yes", "recipe.yaml:8: groups: a whole number is wanted here, not '"),
        ("1/4", "5", "recipe.yaml:9: --bits must be 16, 8, 4, 3, 2 or 1, not 5"),
        ("1/4", "[2", "recipe.yaml:10: "),
        (
            "groups: 2",
            "groups: 1" + ":1" * 10**6,
            "recipe.yaml:8: groups: a whole number is wanted",
        ),
        ("groups: 2", "groups: 1" + ":1" * 190 + ".5", "recipe.yaml: no YAML: int too large to"),
        ("sub/b", "b" * 10**6, "recipe.yaml:4: source: a path or a Hub id is wanted here"),
        ("groups: 2", "groups: !!bool maybe", "recipe.yaml:8: 'maybe' is no bool"),
        ("groups: 2", "groups: !!timestamp x", "recipe.yaml:8: 'x' is no timestamp"),
        ("groups: 2", "groups: !!float", "recipe.yaml:8: '' is no float"),
        ("groups: 2", "groups: 2\n---", "recipe.yaml:9: a second document has no place here"),
        ("  dtd", "  cars", "recipe.yaml:4: 'cars' stands here twice"),
        ("  dtd", "  a/b", "recipe.yaml:4: task name 'a/b': use 1-100 of"),
        ("base: base.safetensors", "", "name a base (or say options: {adapters: true})"),
        ("a.safetensors\n", "&x a.safetensors\n  y: *x\n", "recipe.yaml:4: aliases and deep"),
        ("groups: 2", "adapters: true", "recipe.yaml:1: adapters that stay adapters have no base"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder: Path, old: str, new: str, said: str) -> None:
    assert old in WHOLE
    with pytest.raises(UsageError) as found:
        Recipe.read(write(folder, WHOLE.replace(old, new, 1)))
    assert said in str(found.value)
    assert str(found.value).count("recipe.yaml") == 1


@pytest.mark.parametrize("text", ["", "[]", "hello", "a: [[[[[[[[[[]]]]]]]]]]", "\x00", "- " * 99])
def test_what_is_no_recipe_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        Recipe.read(write(folder, text))


def test_a_source_that_is_not_there_is_named_with_its_line_and_the_nearest(folder: Path) -> None:
    text = WHOLE.replace("cars: a.safetensors", "cars: ab.safetensors")
    with pytest.raises(MissingError, match=r"recipe.yaml:3: .*ab.safetensors: not found \(did you"):
        Recipe.read(write(folder, text))
    with pytest.raises(MissingError, match="no such recipe"):
        Recipe.read(folder / "none.yaml")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="no text, so no recipe"):
        Recipe.read(folder / "binary.yaml")
