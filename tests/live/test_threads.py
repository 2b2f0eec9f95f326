"""Threads that run one attached model: each gets its own tasks' answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import torch

import randes_cli
from tests.live.many import alone, assert_near, attached, bank_of
from tests.models import llama


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bank_of(llama, tmp_path_factory.mktemp("bank"))


def ids(rows: int = 1) -> torch.Tensor:
    return llama()[1]["input_ids"][:1].repeat(rows, 1)


def test_threads_with_tasks_of_their_own_get_their_own_answers(bank: Path) -> None:
    mixed, wanted, wrong = attached(bank), {}, list[str]()
    for task, model in alone(bank, ["cars", "sun"]).items():
        wanted[task] = model(input_ids=ids()).logits.detach()

    def work(task: str) -> None:
        for _ in range(5):
            with torch.no_grad(), mixed.tasks([task]) as model:
                found = model(input_ids=ids()).logits
            if (found - wanted[task]).abs().max() > 1e-5:
                wrong.append(task)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, ("cars", "sun", "cars", "sun")))
    with ThreadPoolExecutor(1) as threads:
        with mixed.tasks(["cars"]):
            other = threads.submit(work, "sun")
            assert wait([other], 0.05).not_done  # until this block ends
        other.result()
    assert wrong == []


def test_threads_of_one_block_run_one_after_another(bank: Path) -> None:
    """The first batch of a kind is tried with its rows turned, which no other may see."""
    asked, inside, most = ["cars", None, "sun"], [0], [0]
    batches = [torch.randint(3, 90, (3, size)) for size in (3, 4, 5, 6)]
    model: Any = randes_cli.transformers.from_bank(bank)

    def begin(*_: Any) -> None:
        inside[0] += 1
        time.sleep(0.01)
        most[0] = max(most[0], inside[0])

    def end(*_: Any) -> None:
        inside[0] -= 1

    model.model.norm.register_forward_pre_hook(begin)
    model.model.norm.register_forward_hook(end)
    mixed = randes_cli.attach(model, bank)
    runs: list[Callable[[Any], Any]] = [
        lambda ids: model(ids).logits,
        lambda ids: model.model(ids).last_hidden_state,
    ]
    for run in runs:
        with mixed.tasks(asked), torch.inference_mode(), ThreadPoolExecutor(4) as threads:
            found = list(threads.map(run, batches))
        for row, task in enumerate(asked):
            with mixed.tasks([task]):
                for ids, answer in zip(batches, found, strict=True):
                    assert_near(answer[row], run(ids[row : row + 1])[0])
    assert most == [1]
