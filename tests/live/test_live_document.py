"""What docs/live.md and the README show is run, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers as tf

from randes_cli import PackOptions, TaskInput, Transform, pack
from tests.models import SMALL, perturb

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``bank.randes`` in the working folder, with the tasks that the pages name."""
    torch.manual_seed(0)
    model = tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL))
    model.save_pretrained(tmp_path / "base")
    for number, task in enumerate(("cars", "sun")):
        perturb(model, number)
        model.save_pretrained(tmp_path / task)
    tasks = [TaskInput(task, str(tmp_path / task)) for task in ("cars", "sun")]
    options = PackOptions(transform=Transform.from_preset("two-sided"))
    pack(str(tmp_path / "base"), tasks, tmp_path / "bank.randes", options)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bank.randes"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)


@pytest.mark.usefixtures("bank")
def test_the_pages_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for code in examples("docs/live.md"):
        exec(compile(code, "docs/live.md", "exec"), names)
    logits, answers = names["logits"], names["answers"]
    assert isinstance(logits, torch.Tensor) and logits.shape == (3, 3, 96)
    assert isinstance(answers, torch.Tensor) and answers.shape[0] == 3
    assert "('cars', 'sun')" in capsys.readouterr().out


@pytest.mark.usefixtures("bank")
def test_the_readmes_mixed_batch_runs() -> None:
    (code,) = [code for code in examples("README.md") if "attach" in code]
    assert len(code.strip().splitlines()) <= 8
    names: dict[str, object] = {"batch": {"input_ids": torch.tensor([[5, 6], [7, 8], [9, 10]])}}
    exec(compile(code, "README.md", "exec"), names)
    logits = names["logits"]
    assert isinstance(logits, torch.Tensor) and logits.shape == (3, 2, 96)
