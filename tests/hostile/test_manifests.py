"""Forged manifests with right digests: field by field, missing, wrong-typed, out of range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from randes_cli.cli.main import run
from tests.hostile.small import contents, forge, forged_manifest, make_small_bank

Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_bank(tmp_path_factory.mktemp("small"))


def _set(*path: Any) -> Change:
    """A change that sets the value at a path; the last word is the value."""
    *keys, value = path

    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


def _without(*keys: Any) -> Change:
    def change(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return change


FIELDS = [
    ("format",),
    ("version",),
    ("features",),
    ("transform",),
    ("transform", "shuffle"),
    ("transform", "signs"),
    ("transform", "targets"),
    ("transform", "every"),
    ("transform", "rest"),
    ("bits",),
    ("seed",),
    ("capacity",),
    ("next_index",),
    ("groups",),
    ("base",),
    ("base", "source"),
    ("base", "fingerprint"),
    ("base", "storage"),
    ("base", "metadata"),
    ("base", "tensors"),
    ("tasks",),
    ("forgotten",),
    ("steps",),
    ("widths",),
    ("stats",),
    ("stats", "cells"),
    ("stats", "estimated"),
    *(
        ("tasks", 1, key)
        for key in (
            "name",
            "index",
            "seed",
            "group",
            "source",
            "fingerprint",
            "metadata",
            "unchanged",
            "missing",
            "own",
            "shapes",
            "dtypes",
        )
    ),
]


def _dotted(path: tuple[Any, ...]) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".")


@pytest.mark.parametrize("path", FIELDS, ids=_dotted)
def test_a_field_that_is_missing_or_of_another_type_is_named(
    path: tuple[Any, ...], small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged_path = tmp_path / "forged.randes"
    wrong: list[object] = [None, 1.5, True, [[]], "\x1b", -1]
    changes = [_without(*path), *(_set(*path, bad) for bad in wrong)]
    for number, change in enumerate(changes):
        forged_manifest(small, forged_path, change)
        code = run(["inspect", str(forged_path)])
        said = capsys.readouterr().err
        assert code == 6, (number, code, said)
        assert said.startswith(f"randes: {forged_path}: manifest: ")
        assert _dotted(path) in said and said.count("\n") == 1
        assert "\x1b" not in said


HUGE = 10**30
VALUES: dict[str, tuple[Change, int, str]] = {
    "newer version": (_set("version", 3), 10, "version 3 is newer than 2"),
    "unknown feature": (_set("features", ["superposition", "warp"]), 10, "requires 'warp'"),
    "other format": (_set("format", "zip"), 6, "format is not randes"),
    "unknown shuffle": (_set("transform", "shuffle", "riffle"), 6, "transform.shuffle is 'riffle'"),
    "unknown signs": (_set("transform", "signs", "row"), 6, "transform.signs is 'row'"),
    "bad pattern": (_set("transform", "targets", "("), 6, "transform.matched is missing"),
    "every 0": (_set("transform", "every", 0), 6, "transform.every is 0"),
    "bits 12": (_set("bits", 12), 6, "bits is 12"),
    "huge seed": (_set("seed", HUGE), 6, "seed is 1000"),
    "seed past 2^53": (_set("seed", 2**53), 6, "seed is 9007199254740992"),
    "older than its header": (_set("version", 1), 6, "another version than its manifest"),
    "capacity 0": (_set("capacity", 0), 6, "capacity is 0"),
    "huge groups": (_set("groups", HUGE), 6, "groups is 1000"),
    "index too large": (_set("tasks", 0, "index", 9), 6, "tasks[0].index is not below next_index"),
    "index twice": (_set("tasks", 0, "index", 1), 6, "tasks has a index twice"),
    "seed twice": (_set("tasks", 0, "seed", 43), 6, "tasks has a seed twice"),
    "name twice": (_set("tasks", 0, "name", "b"), 6, "tasks has a name twice"),
    "case twins": (_set("tasks", 0, "name", "B"), 6, "tasks has a name twice"),
    "group unknown": (_set("tasks", 0, "group", 1), 6, "tasks[0].group is not a group"),
    "unknown base dtype": (
        _set("base", "tensors", "left", ["F4", [40]]),
        6,
        "base.tensors['left']",
    ),
    "base shape": (_set("base", "tensors", "left", ["F32", [41]]), 6, "'base/left' is missing or"),
    "base terabytes": (
        _set("base", "tensors", "left", ["F32", [2**62]]),
        6,
        "base.tensors['left'] is not valid",
    ),
    "base tensor unknown": (_set("base", "tensors", "x", ["F32", [4]]), 6, "'base/x' is missing"),
    "step missing": (_without("steps", "h.0.w"), 6, "steps['h.0.w'] is missing|steps differ"),
    "step too large": (_set("steps", "h.0.w", 101), 6, "steps['h.0.w'] is not valid"),
    "steps of layers differ": (_set("steps", "h.0.w", -3), 6, "steps differ among layers"),
    "step of a stranger": (_set("steps", "ghost", -3), 6, "steps names 'ghost'"),
    "width": (_set("widths", {"wte.weight": 8}), 6, "has another width"),
    "width 3": (_set("widths", {"wte.weight": 3}), 6, "widths['wte.weight'] is not valid"),
    "width of a stranger": (_set("widths", {"ghost": 8}), 6, "widths names 'ghost'"),
    "unchanged stranger": (_set("tasks", 0, "unchanged", ["ghost"]), 6, "unchanged names 'ghost'"),
    "own gone": (_set("tasks", 0, "own", {"x": ["F32", [1]]}), 6, "'own/a/x' is missing"),
    "shape of a vector": (_set("tasks", 1, "shapes", {"left": [50]}), 6, "does not extend"),
    "shape of another width": (_set("tasks", 1, "shapes", {"wte.weight": [9, 4]}), 6, "does not"),
    "terabytes of words": (
        _set("tasks", 1, "shapes", {"wte.weight": [2**62, 3]}),
        6,
        "does not extend",
    ),
    "to integers": (_set("tasks", 1, "dtypes", {"left": "I64"}), 6, "is I64, the base's F32"),
    "all to booleans": (_set("tasks", 1, "dtype", "BOOL"), 6, "is BOOL, the base's F32"),
    "infinite λ": (_set("tasks", 0, "coefficient", 1e300), 6, "coefficient is out of range"),
    "cell of a stranger": (_set("stats", "cells", 0, 1, ["ghost"]), 6, "stats.cells[0] does not"),
    "empty cell": (_set("stats", "cells", 0, 1, []), 6, "stats.cells[0] does not name"),
    "cell twice": (_set("stats", "cells", 0, 1, ["left", "left"]), 6, "names a tensor twice"),
    "estimated stranger": (_set("stats", "estimated", [[0, 7]]), 6, "stats.estimated names"),
    "forgotten but there": (_set("forgotten", [[0, 0]]), 6, "forgotten has 0 of group 0"),
    "escape in a source": (_set("base", "source", "a\x1b[2J"), 6, "base.source has control"),
    "task folder up": (_set("tasks", 0, "name", "../x"), 6, "tasks[0].name is refused"),
    "not an object": (lambda manifest: [], 6, "the whole is not an object"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_out_of_range_is_refused_by_name(
    name: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, code, expected = VALUES[name]
    path = forged_manifest(small, tmp_path / "forged.randes", change)
    for words in (["verify"], ["unpack", "--task", "a", "-o", str(tmp_path / "o.safetensors")]):
        assert run([words[0], str(path), *words[1:]]) == code
        said = capsys.readouterr().err
        assert any(part in said for part in expected.split("|")), said
        assert str(path) in said and said.count("\n") == 1 and "\x1b" not in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["forged.randes"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "Expecting value"),
        (b"\xff", "not UTF-8"),
        (b'{"format":"randes","format":"randes"}', "duplicate key 'format'"),
        (b"[" * 10**5, "nested too deeply"),
        (b'{"seed":' + b"9" * 5000 + b"}", "an integer of 5000 digits"),
        (b'{"x":-Infinity}', "-Infinity is not JSON"),
    ],
    ids=["empty", "UTF-8", "duplicate", "deep", "digits", "infinity"],
)
def test_a_manifest_that_is_no_json_is_refused(
    text: bytes, expected: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, data, _ = contents(small)
    path = forge(tmp_path / "forged.randes", tensors, data, text)
    assert run(["inspect", str(path)]) == 6
    assert expected in capsys.readouterr().err


def test_a_header_of_a_newer_version_is_refused_by_name(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, data, _ = contents(small)
    newer = {"format": "randes", "version": "3"}
    path = forge(tmp_path / "newer.randes", tensors, data, b"{}", newer)
    assert run(["inspect", str(path)]) == 10
    assert f"{path}: a bank of version 3; upgrade randes" in capsys.readouterr().err


def test_what_is_unknown_and_optional_survives_an_edit(small: Path, tmp_path: Path) -> None:
    from randes_cli.build.edit import remove
    from randes_cli.files.bank.file import BankFile
    from randes_cli.specs import RunOptions

    path = forged_manifest(small, tmp_path / "noted.randes", _set("note", {"by": ["me", 1.5]}))
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(
            (small.parent / f"{name}.safetensors").read_bytes()
        )
    remove(path, ["b"], run=RunOptions(threads=1))
    with BankFile(path) as bank:
        assert bank.manifest.extra == {"note": {"by": ["me", 1.5]}}


def test_a_recorded_source_never_leads_out_of_the_folder(small: Path, tmp_path: Path) -> None:
    """A forged bank must not make `remove` or `add` open other files."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "b.safetensors").write_bytes((small.parent / "b.safetensors").read_bytes())
    for source in ("../b.safetensors", str(tmp_path / "b.safetensors"), "x" * 5000, "a\\..\\b"):
        path = forged_manifest(small, inside / "forged.randes", _set("tasks", 1, "source", source))
        assert run(["remove", str(path), "--task", "b"]) == 5
