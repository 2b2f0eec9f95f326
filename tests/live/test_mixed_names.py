"""Mixed batches of tasks that have the base's tensors under other names than it."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import randes_cli
from randes_cli import TaskInput, pack
from tests.live.many import (
    TASKS,
    alone,
    assert_near,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    logits,
    options,
)
from tests.models import qwen3

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize("both", [False, True], ids=["base has one name", "base has both"])
def test_a_tied_head_under_either_of_its_names(both: bool, tmp_path: Path) -> None:
    bank_of(qwen3, tmp_path)
    for folder in ("base", "cars"):
        file = tmp_path / folder / "model.safetensors"
        state = load_file(file)
        state[HEAD] = state[EMBEDDING].clone()
        if folder == "cars" or not both:
            state.pop(EMBEDDING if folder == "cars" else HEAD)
        save_file(state, file, {"format": "pt"})
    tasks = [TaskInput(task, str(tmp_path / task)) for task in TASKS]
    bank = tmp_path / "named.randes"
    pack(str(tmp_path / "base"), tasks, bank, options())
    models, batch = alone(bank), batch_of(qwen3()[1])
    assert_rows_are_their_tasks(attached(bank), models, batch)
    pool = randes_cli.Pool(bank, randes_cli.transformers.from_bank(bank, "sun"))
    for task in TASKS:
        with pool.use(task) as model:
            assert_near(logits(model(**batch), 0), logits(models[task](**batch), 0))
