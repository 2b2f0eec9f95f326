"""randes inspect"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result


def test_inspect_shows_tasks_sizes_and_cosines(bank: Path, randes: Callable[..., Result]) -> None:
    result = randes("inspect", bank)
    assert result.code == 0
    for text in ("two-sided", "16 bits", "seed 42", "h.*.w.weight", "0.70"):
        assert text in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_inspect_json_has_matrices_that_agree_with_the_tasks(
    bank: Path, randes: Callable[..., Result]
) -> None:
    report = randes("inspect", bank, "--json").json
    assert [task["name"] for task in report["tasks"]] == ["a", "b"]
    for key in ("cosine_before", "cosine_during"):
        matrix = report[key]
        assert matrix[0][1] == matrix[1][0]
        assert abs(matrix[0][0] - 1) < 1e-12
        assert abs(matrix[0][1]) < 0.05
    shares = sum(row["share"] for row in report["rows"])
    assert abs(shares - 1) < 1e-9


def test_manifest_is_the_one_in_the_file(bank: Path, randes: Callable[..., Result]) -> None:
    from safetensors import safe_open

    shown = randes("inspect", bank, "--manifest").json
    with safe_open(bank, "numpy") as opened:
        assert shown == json.loads(opened.get_tensor("manifest").tobytes())
    assert [task["seed"] for task in shown["tasks"]] == [42, 43]


def test_against_shows_truth_beside_prediction(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    words = ["inspect", bank, "--against", f"a={family / 'a.safetensors'}", "-q"]
    result = randes(*words)
    assert result.code == 0
    assert "task a, λ = 1 " in result.out and "σ / bound" in result.out
    assert max(map(len, result.out.splitlines())) <= 100
    (measured,) = randes(*words, "--json").json["measured"]
    assert measured["task"] == "a"
    assert abs(measured["whole"]["cosine"] - measured["whole"]["predicted_cosine"]) < 0.02


def test_one_task_alone_has_its_source_and_its_rows(
    bank: Path, randes: Callable[..., Result]
) -> None:
    result = randes("inspect", bank, "--task", "b", "--by", "layer", "--sort", "name")
    assert "b.safetensors" in result.out and "layer 3" in result.out
    report = randes("inspect", bank, "--task", "b", "--json").json
    assert report["task"] == "b"
    assert {row["name"] for row in report["task_rows"]} == {
        "h.*.w.weight",
        "wte.weight",
        "norm.bias",
    }
    assert randes("inspect", bank, "--task", "nobody").code == 5


def test_what_no_table_shows_is_told_in_json_all_the_same(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    given = [word for name in "ab" for word in ("--against", f"{name}={family / name}.safetensors")]
    report = randes("inspect", bank, "--json").json
    measured = randes("verify", bank, *given, "--json").json["against"]
    predicted = [detail["predicted_error"] for detail in report["details"]]
    assert predicted == pytest.approx([check["error"] for check in measured], rel=0.03)
    assert report["sealed"] == {} and randes("seal", bank, "--bits", 2, "--in-place").code == 0
    assert randes("inspect", bank, "--json").json["sealed"] == {"0": 2}


def test_every_answer_names_the_bank_that_it_is_of(
    family: Path, randes: Callable[..., Result]
) -> None:
    base, a, b, c = (family / f"{name}.safetensors" for name in ("base", "a", "b", "c"))
    bank, other = family / "x.randes", family / "y.randes"
    score = ["--evaluate", "sh -c 'echo 1' {checkpoint}"]
    for words, named in (
        (["pack", base, a, b, "-o", bank, "--bits", "8"], bank),
        (["pack", base, a, b, "-o", other, "--bits", "2"], other),
        (["add", bank, c], bank),
        (["remove", bank, "c"], bank),
        (["inspect", bank], bank),
        (["verify", bank], bank),
        (["evaluate", bank, *score], bank),
        (["tune", bank, *score, "--grid", "1:1:1"], bank),
        (["seal", bank, "--bits", "4", "-o", other, "--force"], other),
        (["convert", bank, "--single-file", "-o", other, "--force"], other),
    ):
        result = randes(*words, "--json")
        assert result.code == 0, result.err
        assert result.json["bank"] == str(named), words
