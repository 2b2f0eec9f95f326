"""The manifest's reader: what tests/hostile/test_manifests.py does not forge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import decode
from randes_cli.files.bank.records import SealRecord
from tests.bank_example import example_bank

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("example")
    example_bank(folder)
    with BankFile(folder / "example.randes") as opened:
        return opened.read_whole("manifest").tobytes()


@pytest.fixture
def manifest(text: bytes) -> dict[str, Any]:
    """The example's manifest as JSON."""
    made: dict[str, Any] = json.loads(text)
    return made


def task(**fields: object) -> Change:
    return lambda m: m["tasks"][1].update(fields)


def cells(*made: object) -> Change:
    return lambda m: m["stats"].update(cells=[*made])


DAMAGED: dict[str, tuple[Change, str]] = {
    "a step of truth beside a number": (
        lambda m: m.update(steps={"w": 1, "x": True}),
        "steps['x'] is not valid",
    ),
    "shape of nothing": (task(shapes={"x": [2, 3]}), "tasks[1].shapes names 'x', which the base"),
    "dtype of nothing": (task(dtypes={"x": "F16"}), "tasks[1].dtypes names 'x', which the base"),
    "from integers": (
        lambda m: [
            m["base"]["tensors"].update(n=["I64", [1]]),
            m["tasks"][1].update(dtypes={"n": "F32"}),
        ],
        "tasks[1].dtypes['n'] is F32, the base's I64",
    ),
    "no default": (lambda m: m["tasks"][1].pop("default"), "tasks[1].default is missing"),
    "a tie of what is there": (task(ties={"w": "w"}), "tasks[1].ties['w'] is no further name"),
    "a tie of nothing": (task(ties={"x": "y"}), "tasks[1].ties names 'y', which is not kept"),
    "a tie of the base's of nothing": (
        lambda m: m["base"].update(ties={"x": "y"}),
        "base.ties names 'y', which is not kept",
    ),
    "a tie with an escape": (task(ties={"\x1b": "w"}), "tasks[1].ties['\\x1b'] is no further name"),
    "a long list of what stays": (
        task(left_out={f"{n}": "x" for n in range(1002)}),
        "tasks[1].left_out is not a list of files",
    ),
    "a file at the root": (
        task(layout={"": "/x.safetensors"}),
        "tasks[1].layout[''] is not a file",
    ),
    "a seal of 5 bits": (
        lambda m: m.update(sealed={"0": {"bits": 5, "layout": "levels/1"}}),
        "sealed[0].bits is 5",
    ),
    "coefficient of truth": (task(coefficient=True), "tasks[1].coefficient is out of range"),
    "coefficient of text": (task(coefficient="1"), "tasks[1].coefficient is out of range"),
    "another seal": (
        lambda m: m.update(sealed={"0": {"bits": 4, "layout": "levels/2"}}),
        "sealed[0].layout is 'levels/2', which this version does not know",
    ),
    "prefix": (task(prefix=["a\x1b.", ""]), "tasks[1].prefix is not valid"),
    "a share of text": (lambda m: m.update(shares={"0": 2.0}), "shares['0'] is not valid"),
    "a share of no group": (lambda m: m.update(shares={"1": 2}), "shares['1'] is not a group of"),
    "forgotten to come": (lambda m: m.update(forgotten=[[2, 0]]), "forgotten has 2 of group 0"),
    "forgotten elsewhere": (
        lambda m: m.update(next_index=3, forgotten=[[2, 1]]),
        "forgotten has 2 of group 1",
    ),
    "a cell with an escape": (cells(["a\x1b", ["w"]]), "stats.cells[0] does not name"),
    "a cell of a number": (cells([3, ["w"]]), "stats.cells[0] is not valid"),
    "a cell that names a number": (cells(["a", [3]]), "stats.cells[0] is not valid"),
    "a length of 1.0 beside 1": (
        task(own={"x": ["F32", [1]], "y": ["F32", [1.0]]}),
        "tasks[1].own['y'] is not valid",
    ),
    "a tensor twice in a cell": (cells(["a", ["w", "w"]]), "stats.cells[0] names a tensor twice"),
    "a tensor in two cells": (
        cells(["a", ["w"]], ["b", ["w"]]),
        "stats.cells[1] names a tensor twice",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_bad_field_is_refused_by_its_name(manifest: dict[str, Any], case: str) -> None:
    change, reason = DAMAGED[case]
    change(manifest)
    with pytest.raises(BankDamaged) as caught:
        decode(json.dumps(manifest).encode())
    assert str(caught.value).startswith(f"manifest: {reason}")


#: Values of another kind than a task's field takes.
WRONG: dict[str, list[object]] = {
    "pickle": [3, "a\x1b", "x" * 70_000],
    "dtype": [[], "F7"],
    "prefix": ["ab", ["a"], [1, 2]],
    "shapes['w']": ["ab", [1] * 65, [2.0, 3], [2**63, 3], [True, 3]],
    "own['x']": [3, "ab", ["F32"], [3, [1]], ["F7", [1]], ["F32", 3]],
    "own['y']": [["F32", [1.0]], ["F32", [True]], ["F32", [2**62]], ["F32", [-1]]],
    "left_out['x']": [3, "a\x1b"],
    "files['x.json']": [3, "0" * 31, "G" * 32],
    "layout['']": [3, None],
}
ENTRIES: dict[tuple[str, Any], list[object]] = {
    ("steps", "w"): [True, 1.0, "1"],
    ("widths", "w"): [8.0, "8"],
    ("forgotten", 0): [[1], [1, 2, 3], "ab", [1, 0.0]],
    ("tuning", "a"): [{}, 3, [3], [[1]], [["x", 1]], [[1, "x"]]],
}


def each(table: Mapping[Any, list[object]]) -> list[tuple[Any, object]]:
    return [(field, value) for field, values in table.items() for value in values]


@pytest.mark.parametrize(("field", "value"), each(WRONG))
def test_a_value_of_another_kind_is_refused(
    field: str, value: object, manifest: dict[str, Any]
) -> None:
    name, _, key = field.partition("['")
    manifest["tasks"][1][name] = {key.removesuffix("']"): value} if key else value
    with pytest.raises(BankDamaged) as caught:
        decode(json.dumps(manifest).encode())
    assert str(caught.value) == f"manifest: tasks[1].{field} is not valid"


@pytest.mark.parametrize(("field", "value"), each(ENTRIES))
def test_an_entry_of_another_kind_is_refused(
    field: tuple[str, Any], value: object, manifest: dict[str, Any]
) -> None:
    table, key = field
    manifest[table] = [value] if key == 0 else {key: value}
    with pytest.raises(BankDamaged) as caught:
        decode(json.dumps(manifest).encode())
    assert str(caught.value) == f"manifest: {table}[{key!r}] is not valid"


def test_the_only_two_tasks_may_have_an_estimate(manifest: dict[str, Any]) -> None:
    manifest["stats"].update(estimated=[[0, 1]])
    assert decode(json.dumps(manifest).encode()).estimated == {(0, 1)}


def test_features_are_those_that_are_needed_each_once(manifest: dict[str, Any]) -> None:
    made, seal = decode(json.dumps(manifest).encode()), SealRecord(4)
    full = made.with_sealed({0: seal}).with_sealed({0: seal}).with_shares({0: 2})
    assert full.features == ("superposition", "sealed", "share")
    assert full.with_sealed({}).with_shares({0: 1}).features == made.features
    assert replace(made, features=(*made.features, "ties")).to_json()["features"] == [
        *made.features
    ]
