"""randes tune"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from randes_cli import Bank, TaskInput
from randes_cli.build.edit import add, remove
from randes_cli.errors import MismatchError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.ops.scoring import read_score
from randes_cli.ops.tune import TuneOptions, parse_grid, tune
from randes_cli.specs import EditOptions
from tests.cli.conftest import Result

#: Scores a checkpoint by how near its mean |norm.bias| delta is to what λ = 0.6 (task a) gives.
SCRIPT = """
import sys, pathlib
checkpoint, task, log = sys.argv[1:4]
with open(log, "a") as file:
    file.write(task + "\\n")
size = pathlib.Path(checkpoint).stat().st_size
if len(pathlib.Path(log).read_text().split()) == int(sys.argv[4] if len(sys.argv) > 4 else -1):
    sys.exit("no more today")
import struct, json
data = pathlib.Path(checkpoint).read_bytes()
length = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8 : 8 + length])
start, stop = header["norm.bias"]["data_offsets"]
raw = data[8 + length + start : 8 + length + stop]
values = struct.unpack("<48f", raw)
base = json.loads(pathlib.Path(sys.argv[0]).with_suffix(".json").read_text())
moved = sum(abs(a - b) for a, b in zip(values, base["norm"]))
print("epoch 1 of 3")
print(f"score: {-abs(moved - base['full'][task] * 0.6):.6f}")
"""


@pytest.fixture
def script(bank: Path, family: Path) -> Path:
    base = load_file(family / "base.safetensors")["norm.bias"]
    with Bank.open(bank) as opened:
        full = {
            name: float(
                (opened.retrieve(name, coefficient=1.0)["norm.bias"].float() - base).abs().sum()
            )
            for name in ("a", "b")
        }
    path = family / "score.py"
    path.write_text(SCRIPT)
    path.with_suffix(".json").write_text(json.dumps({"norm": base.tolist(), "full": full}))
    return path


def command(script: Path, log: Path, *more: object) -> str:
    words = [sys.executable, script, "{checkpoint}", "{task}", log, *more]
    return " ".join(f"'{word}'" for word in words)


def coefficients(bank: Path) -> dict[str, float | None]:
    with BankFile(bank) as file:
        return {task.name: task.coefficient for task in file.manifest.tasks}


def test_tune_records_the_best_lambda_which_unpack_uses(
    bank: Path, script: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    result = randes("tune", bank, "--evaluate", command(script, tmp_path / "log"), "--json")
    assert result.code == 0, result.err
    assert {task["task"]: task["coefficient"] for task in result.json["tasks"]} == {
        "a": 0.6,
        "b": 0.6,
    }
    assert coefficients(bank) == {"a": 0.6, "b": 0.6}
    assert [point[0] for point in result.json["tasks"][0]["curve"]] == [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0
    ]  # fmt: skip
    said = randes("unpack", bank, "--task", "a", "-o", tmp_path / "out.safetensors")
    assert "λ 0.6" in said.out
    assert not (bank.parent / f"{bank.name}.tuning.json").exists()
    assert randes("verify", bank).code == 0


def test_the_curve_is_shown_and_survives_edits(
    bank: Path, script: Path, family: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    words = ["--evaluate", command(script, tmp_path / "log"), "--grid", "0.4,0.6,1"]
    shown = randes("tune", bank, *words)
    assert "▁" in shown.out and "█" in shown.out
    before = BankFile(bank).manifest.tuning
    add(bank, [TaskInput("c", str(family / "c.safetensors"))], EditOptions())
    with BankFile(bank) as file:
        assert file.manifest.tuning == before
        assert set(before) == {"a", "b"}
    remove(bank, ["a"], EditOptions())
    with BankFile(bank) as file:
        assert set(file.manifest.tuning) == {"b"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('out of memory')", "ended with 1 on a: out of memory"),
        ("print('nothing')", "for a the command printed 'nothing'"),
        ("print('nan')", "for a the command printed 'nan'"),
    ],
)
def test_a_failing_evaluation_leaves_the_bank_as_it_was(
    bank: Path, randes: Callable[..., Result], code: str, said: str
) -> None:
    before = bank.read_bytes()
    evaluate = f'{sys.executable} -c "{code}" {{checkpoint}}'
    result = randes("tune", bank, "--evaluate", evaluate)
    assert (result.code, said in result.err) == (2, True)
    assert bank.read_bytes() == before


def test_a_command_without_a_place_for_the_checkpoint_is_refused(
    bank: Path, randes: Callable[..., Result]
) -> None:
    assert "{checkpoint}" in randes("tune", bank, "--evaluate", "true").err
    assert randes("tune", bank, "--evaluate", "no-such-program {checkpoint}").code == 5
    for wrong, said in (("'{checkpoint}", "No closing"), ("/ {checkpoint}", "/: Permission")):
        result = randes("tune", bank, "--evaluate", wrong)
        assert (result.code, f"--evaluate: {said}" in result.err) == (2, True)


def test_an_interrupted_run_is_taken_up_where_it_stopped(
    bank: Path, script: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    before, log = bank.read_bytes(), tmp_path / "log"
    words = ["--evaluate", command(script, log, 4), "--grid", "0.2,0.6,1", "--json"]
    assert "no more today" in randes("tune", bank, *words).err
    assert bank.read_bytes() == before
    result = randes("tune", bank, *words, "--resume")
    assert (result.json["evaluations"], result.json["resumed"]) == (3, 3)
    assert coefficients(bank) == {"a": 0.6, "b": 0.6}
    assert log.read_text().split() == ["a", "a", "a", "b", "b", "b", "b"]


def test_resume_refuses_the_scores_of_another_evaluation(
    bank: Path, script: Path, tmp_path: Path, randes: Callable[..., Result]
) -> None:
    stopped = ["--evaluate", command(script, tmp_path / "log", 2)]
    assert randes("tune", bank, *stopped).code == 2
    other = randes("tune", bank, "--evaluate", command(script, tmp_path / "other"), "--resume")
    assert (other.code, "of another bank or another" in other.err) == (2, True)
    bank.with_name(f"{bank.name}.tuning.json").write_text("[1]")
    assert "of another bank or another" in randes("tune", bank, *stopped, "--resume").err


@pytest.mark.parametrize("kind", ["nested", "pipe", "device", "folder"])
def test_resume_refuses_what_holds_no_scores(
    kind: str, bank: Path, randes: Callable[..., Result]
) -> None:
    notes = bank.with_name(f"{bank.name}.tuning.json")
    if kind == "nested":
        notes.write_text("[" * 100_000)
    elif kind == "pipe":
        os.mkfifo(notes)
    elif kind == "device":
        notes.symlink_to("/dev/zero")
    else:
        notes.mkdir()
    result = randes("tune", bank, "--evaluate", "echo 1 {checkpoint}", "--resume")
    assert (result.code, "cannot be taken up" in result.err) == (2, True)


def test_a_callable_tunes_and_uniform_takes_the_best_mean(bank: Path) -> None:
    scores = {"a": {0.5: 3.0, 1.0: 1.0}, "b": {0.5: 1.0, 1.0: 2.5}}
    seen: list[tuple[str, bool]] = []

    def evaluate(checkpoint: Path, task: str) -> float:
        seen.append((task, checkpoint.exists()))
        at = 0.5 if sum(name == task for name, _ in seen) == 1 else 1.0
        return scores[task][at]

    report = tune(bank, evaluate, TuneOptions((0.5, 1.0), uniform=True))
    assert [task.coefficient for task in report.tasks] == [0.5, 0.5]
    assert coefficients(bank) == {"a": 0.5, "b": 0.5}
    assert all(there for _, there in seen)


def test_only_the_named_task_is_tuned_and_of_equal_scores_the_one_nearest_to_1_counts(
    bank: Path, randes: Callable[..., Result]
) -> None:
    tune(bank, lambda path, task: 1.0, TuneOptions((0.5, 0.9, 2.0), tasks=("b",)))
    assert coefficients(bank) == {"a": None, "b": 0.9}
    assert "score 1.0000 at λ = 0.9, of 3" in randes("inspect", bank, "b").out


@pytest.mark.parametrize("score", [float("nan"), float("inf"), True, None])
def test_a_callable_that_gives_no_number_is_refused(bank: Path, score: object) -> None:
    with pytest.raises(UsageError, match="not a finite number"):
        tune(bank, lambda path, task: score, TuneOptions((0.5,)))  # type: ignore


@pytest.mark.parametrize("options", [TuneOptions((0.5, 1.0)), TuneOptions((1.0,), tasks=("a",))])
def test_a_bank_that_changed_meanwhile_is_left_alone(
    bank: Path, family: Path, options: TuneOptions
) -> None:
    def evaluate(checkpoint: Path, task: str) -> float:
        with BankFile(bank) as file:
            names = [record.name for record in file.manifest.tasks]
        if "c" not in names:
            add(bank, [TaskInput("c", str(family / "c.safetensors"))], EditOptions())
        return 1.0

    with pytest.raises(MismatchError, match="changed while its tasks were scored"):
        tune(bank, evaluate, options)
    assert set(coefficients(bank).values()) == {None}


def test_grids_are_read_and_wrong_ones_refused() -> None:
    assert parse_grid("0.1:0.3:0.1") == (0.1, 0.2, 0.3)
    assert parse_grid("1, 0.5") == (0.5, 1.0)
    for wrong in ("", "a", "0:1", "1:0:0.1", "0:1:0", "0:1:nan", "0:1:0.00001", "0:1:1e-320"):
        with pytest.raises(UsageError, match="--grid"):
            parse_grid(wrong)
    assert len(parse_grid("0:0.999:0.001")) == 1000
    assert TuneOptions((1, 0.5, 1)).grid == (0.5, 1.0)
    with pytest.raises(UsageError, match="--grid"):
        TuneOptions((2e6,))
    with pytest.raises(UsageError, match="--wait"):
        TuneOptions((1.0,), wait=float("nan"))


@pytest.mark.parametrize(
    ("text", "metric", "score"),
    [
        ("loading\nacc 0.5\n0.75\n\n", None, 0.75),
        ("accuracy: 93.4%", None, 93.4),
        ("accuracy: 93.4%", "accuracy", 93.4),
        ("Accuracy (top-1) = -1e-3", None, -0.001),
        ("50%", None, 50.0),
        ('{"acc": 0.5, "ok": true}', None, 0.5),
        ("Epoch 3: 0.5", None, 0.5),
        ("lr_finder_time: 2", "lr_finder_time", 2.0),
        ("eval_loss: -0.52", None, -0.52),
        ('{"acc": 0.5, "loss": 2, "ok": true}', "acc", 0.5),
        ('done\n{\n  "results": {"piqa": {"acc": 0.79, "acc_stderr": 0.01}}\n}\n', "acc", 0.79),
    ],
)
def test_a_score_is_a_last_line_of_one_number(text: str, metric: str | None, score: float) -> None:
    assert read_score(text, metric) == score


@pytest.mark.parametrize(
    ("text", "metric", "said"),
    [
        ("", None, "printed nothing"),
        ("nan", None, "printed 'nan'"),
        ("1e999", None, "not a finite number"),
        ("0,5", None, "printed '0,5'"),
        ("|piqa |      1|none|acc|0.7900|+- |0.0095|", None, "printed '|piqa |"),
        ("{'eval_accuracy': 0.81, 'epoch': 3.0}", None, "printed"),
        ("accuracy: 0.93 (279/300 right in 4.2 s)", None, "printed 'accuracy: 0.93 (279"),
        ('{"acc": 0.5, "loss": 2}', None, "it has acc, loss: say --metric NAME"),
        ('{"acc": 0.5}', "f1", "which has no number 'f1'"),
        ('{"a": {"acc": 1}, "b": {"acc": 2}}', "acc", "it has a.acc, b.acc"),
        ("epoch: 3", "acc", "and --metric is acc"),
        ("epoch: 3", None, "printed epoch at last, which is no score"),
        ("Wall time: 12.5", None, "printed Wall time at last"),
        ('{"acc_stderr": 0.01}', None, "printed acc_stderr at last"),
        ("perplexity = 12.5", None, "better the lower"),
        ('{"eval_loss": 0.5, "eval_acc": 0.8}', "eval_loss", "better the lower"),
        ('{"acc": 1' + 400 * "0" + "}", None, "not a finite number"),
        ("v2 of model4", None, "printed 'v2 of model4'"),
        ('{"acc":' * 100_000, None, "not a number"),
        ('{"acc":' * 5000 + "1" + "}" * 5000, None, "not a number"),
        ('{"acc": 1}\n' * 100_000 + "done", None, "printed 'done' at last"),
    ],
)
def test_what_may_be_another_number_is_no_score(text: str, metric: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        read_score(text, metric)
