"""randes evaluate"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from randes_cli import Bank, TaskInput, add
from randes_cli.build.jobs.copies import rewrite_manifest
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.ops.evaluate import evaluate
from tests.cli.conftest import Result

#: 1 for an original, 0 for a base file, else 0.5.
CODE = (
    "import sys; n = sys.argv[1].split('/')[-1]; "
    "print({'a.safetensors': 0.8, 'b.safetensors': 0.5}.get(n, 0.1) "
    "if 'retrieved' not in sys.argv[1] else 0.4)"
)


def words(family: Path) -> list[str]:
    return ["--evaluate", f'{sys.executable} -c "{CODE}" {{checkpoint}} {{task}}']


def test_tasks_are_scored_beside_their_originals_and_the_base(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    result = randes("evaluate", bank, *words(family), "--json")
    assert result.code == 0, result.err
    rows = {row["task"]: row for row in result.json["tasks"]}
    assert rows["a"]["original"] == 0.8 and rows["a"]["normalised"] == 0.5
    assert rows["b"]["normalised"] == 0.8 and rows["b"]["base"] == 0.4
    assert result.json["mean"]["normalised"] == 0.65


def test_a_named_base_and_original_are_scored_instead(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    more = ["--base", family / "base.safetensors", "--against", f"a={family / 'b.safetensors'}"]
    result = randes("evaluate", bank, *words(family), *more, *2 * ["--task", "a"], "--json")
    assert [(row["original"], row["base"]) for row in result.json["tasks"]] == [(0.5, 0.1)]
    said = "scored, but beside other checkpoints than were packed as a (their fingerprints differ)"
    assert (result.code, result.json["strange"]) == (1, ["a"]) and said in result.err


def test_an_original_that_was_trained_on_in_its_place_is_named(bank: Path, family: Path) -> None:
    assert evaluate(bank, lambda checkpoint, task: 1.0).strange == ()
    (family / "a.safetensors").write_bytes((family / "c.safetensors").read_bytes())
    report = evaluate(bank, lambda checkpoint, task: 1.0)
    assert report.strange == ("a",) and report.tasks[0].original == 1.0
    at_hub = f"org/model@{'0' * 40}"  # is not fetched to be scored
    rewrite_manifest(
        bank, lambda old: old.with_tasks([replace(task, source=at_hub) for task in old.tasks])
    )
    found = evaluate(bank, lambda checkpoint, task: 1.0)
    assert [task.original for task in found.tasks] == [None, None] and found.strange == ()


def test_a_missing_original_is_said_and_leaves_its_cells_empty(
    bank: Path, family: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    (family / "a.safetensors").rename(family / "moved.safetensors")
    out = tmp_path / "scores.csv"
    result = randes("evaluate", bank, *words(family), "--csv", out)
    assert "no original found for a; say --against NAME=CHECKPOINT" in result.err
    rows = list(csv.DictReader(out.open()))
    assert (rows[0]["task"], rows[0]["original"], rows[0]["retrieved"]) == ("a", "", "0.4")
    assert rows[1]["normalised"] == "0.8"


def test_markdown_has_a_row_for_each_task_and_the_mean(
    bank: Path, family: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    out = tmp_path / "scores.md"
    assert randes("evaluate", bank, *words(family), "--markdown", out, "-q").code == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "| task | λ | retrieved | original | normalised | base |"
    assert lines[2] == "| a | 1 | 0.4000 | 0.8000 | 0.5000 | 0.4000 |"
    assert lines[-1].startswith("| mean | 1 | 0.4000 | 0.6500 | 0.6500")
    again = randes("evaluate", bank, *words(family), "--markdown", out)
    assert (again.code, "exists" in again.err) == (2, True)


def test_the_base_is_the_task_at_lambda_zero_and_lambda_is_obeyed(bank: Path) -> None:
    seen: list[float] = []

    def score(checkpoint: Path, task: str) -> float:
        from safetensors.torch import load_file

        seen.append(float(load_file(checkpoint)["h.0.w.weight"].float().sum()))
        return 1.0

    report = evaluate(bank, score, tasks=["a"], coefficient=0.5)
    with Bank.open(bank) as opened:
        wanted = [
            float(opened.retrieve("a", coefficient=at)["h.0.w.weight"].float().sum())
            for at in (0.5, 0.0)
        ]
    assert [seen[0], seen[-1]] == wanted
    assert report.tasks[0].coefficient == 0.5


@pytest.mark.parametrize("score", [-1.0, 0.0])
def test_of_scores_that_are_not_above_0_there_is_no_ratio(bank: Path, score: float) -> None:
    report = evaluate(bank, lambda checkpoint, task: score, tasks=["a"])
    assert report.tasks[0].original == score
    assert report.tasks[0].normalised is None and report.mean.normalised is None


def test_a_table_goes_to_standard_output_in_the_form_that_is_asked_for(
    bank: Path,
    family: Path,
    tmp_path: Path,
    randes: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for option in ("--csv", "--markdown"):
        printed = randes("evaluate", bank, *words(family), option, "-")
        assert randes("evaluate", bank, *words(family), option, "file", "--force", "-q").code == 0
        assert printed.out.splitlines() == Path("file").read_text().splitlines()
        refused = randes("evaluate", bank, *words(family), option, "-", "--json")
        assert (refused.code, "where --json goes" in refused.err) == (2, True)
        twice = [f"{one}=file" for one in ("--csv", "--markdown")]
        refused = randes("evaluate", bank, *words(family), *twice, "--force")
        assert (refused.code, "named for both" in refused.err) == (2, True)
    assert not Path("-").exists()


def test_an_original_that_is_named_and_not_there_is_refused_before_hours_of_scoring(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    result = randes("evaluate", bank, *words(family), "--original", "a=gone.safetensors")
    assert (result.code, result.err.strip()) == (5, "randes: gone.safetensors: not found")
    result = randes("evaluate", bank, *words(family), f"--against=c={family / 'c.safetensors'}")
    assert result.code == 5 and "no task" in result.err


def test_where_a_table_cannot_go_is_said_before_hours_of_scoring(
    bank: Path, family: Path, randes: Callable[..., Result]
) -> None:
    never = ["evaluate", bank, "--evaluate", "false {checkpoint}", "--csv"]
    assert "exists (say --force" in randes(*never, family / "a.safetensors").err
    assert "is the input" in randes(*never, bank, "--force").err


@pytest.mark.parametrize("name", ["a", "base"])
def test_a_checkpoint_that_changes_while_it_is_scored_is_told(
    bank: Path, family: Path, name: str
) -> None:
    path = family / f"{name}.safetensors"

    def score(checkpoint: Path, task: str) -> float:
        if checkpoint == path:
            path.write_bytes(path.read_bytes())
        return 1.0

    with pytest.raises(CheckpointError, match=f"{name}.safetensors: changed"):
        evaluate(bank, score, tasks=["a"], base=family / "base.safetensors")


def test_scores_of_a_bank_that_changes_meanwhile_are_of_no_mixture(
    bank: Path, family: Path
) -> None:
    def score(checkpoint: Path, task: str) -> float:
        with Bank.open(bank) as now:
            there = now.tasks
        if "c" not in there:
            add(bank, [TaskInput("c", str(family / "c.safetensors"))])
        return 1.0

    with pytest.raises(MismatchError, match="changed while its tasks were scored"):
        evaluate(bank, score)
