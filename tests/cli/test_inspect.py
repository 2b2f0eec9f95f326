"""randes inspect"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
