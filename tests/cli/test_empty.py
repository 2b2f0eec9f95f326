"""A bank whose tasks were all removed: every command says so, and none invents a number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from randes_cli.cli.main import run
from tests.checkpoints import Packer, perturbed, random_state

SCORE = "echo 1 # {checkpoint} {task}"


@pytest.fixture
def emptied(packer: Packer) -> Path:
    base = random_state({"w": [40, 40]})
    bank = packer.pack(base, {"a": perturbed(base, seed=1)})
    assert run(["remove", str(bank), "--task", "a", "-q"]) == 0
    return bank


@pytest.mark.parametrize(
    "words",
    [
        ["tune", "--evaluate", SCORE],
        ["tune", "--uniform", "--evaluate", SCORE],
        ["evaluate", "--evaluate", SCORE],
        ["seal", "--bits", "2", "--in-place"],
        ["unpack", "--all", "-o", "out"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_needs_a_task_says_that_none_is_left_and_changes_nothing(
    emptied: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = emptied.read_bytes()
    assert run([words[0], str(emptied), *words[1:]]) == 5
    said = capsys.readouterr().err
    assert "no task is left in it" in said and said.count("\n") == 1
    assert emptied.read_bytes() == before


def test_inspect_and_report_show_a_bank_without_tasks(
    emptied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(emptied), "--json"]) == 0
    text = capsys.readouterr().out
    assert "Infinity" not in text and "NaN" not in text
    assert json.loads(text)["ratio_to_separate"] is None
    assert run(["inspect", str(emptied)]) == 0
    assert run(["report", str(emptied), "-o", str(tmp_path / "page.html")]) == 0
    assert "inf" not in capsys.readouterr().out.split()


def test_pack_and_inspect_give_one_ratio(
    packer: Packer, capsys: pytest.CaptureFixture[str]
) -> None:
    base = random_state({"w": [40, 40]})
    bank = packer.pack(base, {f"t{n}": perturbed(base, seed=n) for n in range(3)})
    report = packer.reports[-1]
    assert run(["inspect", str(bank), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["separate_bytes"] == report.separate_bytes
    assert found["ratio_to_separate"] == report.bank_bytes / report.separate_bytes
