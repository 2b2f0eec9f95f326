"""A pool's model is one task at a time, whoever asks, and never a mixture."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import randes_cli
from randes_cli import Bank, Pool
from randes_cli.errors import BankDamaged, MismatchError, MissingError, UsageError
from tests.checkpoints import PRESET_NAMES
from tests.live.many import TASKS, bank_of, options
from tests.live.test_from_bank import assert_same
from tests.models import Made, gpt2, llama, mixtral, qwen3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("transform", PRESET_NAMES)
def test_a_swapped_in_task_is_the_unpacked_one(
    tmp_path: Path, transform: str, dtype: torch.dtype
) -> None:
    bank = bank_of(qwen3, tmp_path, options(transform), dtype)
    model = randes_cli.transformers.from_bank(bank)
    places = [p.data_ptr() for p in model.parameters()]
    with Pool(bank, model) as pool:
        for task in ("sun", "cars", "sun"):
            with pool.use(task) as used:
                assert used is model
                assert_same(model, randes_cli.transformers.from_bank(bank, task))
    assert [p.data_ptr() for p in model.parameters()] == places


@pytest.mark.parametrize("make", [mixtral, gpt2], ids=lambda make: make.__name__)
def test_experts_in_one_tensor_and_other_dtypes_are_filled(
    make: Callable[[], Made], tmp_path: Path
) -> None:
    bank = bank_of(make, tmp_path)
    for dtype in (torch.float32, torch.float16):
        model = randes_cli.transformers.from_bank(bank, dtype=dtype)
        with Pool(bank, model) as pool, pool.use("dtd"):
            assert_same(model, randes_cli.transformers.from_bank(bank, "dtd", dtype=dtype))


def test_a_task_that_is_there_is_not_swapped_in_again(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    with Pool(bank, randes_cli.transformers.from_bank(bank)) as pool:
        for task in ("cars", "cars", "sun", "sun", "cars"):
            with pool.use(task), pool.use(task):
                assert pool.current == task
        assert pool.swaps == 3


def test_threads_get_their_own_tasks_answers(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    ids = llama()[1]["input_ids"]
    wanted = {
        task: randes_cli.transformers.from_bank(bank, task)(input_ids=ids).logits for task in TASKS
    }
    wrong: list[str] = []
    with Pool(bank, randes_cli.transformers.from_bank(bank)) as pool:

        def work(task: str) -> None:
            for _ in range(5):
                with torch.no_grad(), pool.use(task, timeout=300) as model:
                    if not torch.equal(model(input_ids=ids).logits, wanted[task]):
                        wrong.append(task)

        threads = [threading.Thread(target=work, args=(TASKS[n % 3],)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_users_of_one_task_run_together_and_a_swap_goes_before_later_ones(
    tmp_path: Path,
) -> None:
    bank = bank_of(llama, tmp_path)
    order: list[str] = []
    both, leave, asked = threading.Barrier(3), threading.Event(), threading.Event()
    with Pool(bank, randes_cli.transformers.from_bank(bank)) as pool:

        def user() -> None:
            with pool.use("cars"):
                both.wait(300)  # only two at once get past it
                leave.wait(300)

        def later(task: str) -> None:
            with pool.use(task):
                order.append(task)

        users = [threading.Thread(target=user) for _ in range(2)]
        for thread in users:
            thread.start()
        both.wait(300)
        with (
            pytest.raises(TimeoutError, match="2 users of cars are running"),
            pool.use("sun", timeout=0.01),
        ):
            pass
        waiting = []
        for count, task in enumerate(("sun", "cars"), 1):
            waiting.append(threading.Thread(target=later, args=(task,)))
            waiting[-1].start()
            while len(pool._queue) < count:
                asked.wait(0.001)
        leave.set()
        for thread in (*users, *waiting):
            thread.join()
    assert order == ["sun", "cars"]


def test_a_swap_that_fails_leaves_a_model_that_says_so(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options(groups=3))
    ids = llama()[1]["input_ids"]
    with Bank.open(bank) as opened:
        start = opened.file.header.starts["sum/1/model.layers.1.mlp.up_proj.weight"]
    data = bytearray(bank.read_bytes())
    data[start] ^= 1
    bank.write_bytes(data)
    model: Any = randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        with pytest.raises(UsageError, match=r"inside `with pool\.use"):
            model(input_ids=ids)
        with pytest.raises(BankDamaged, match="is damaged"), pool.use("sun"):
            pass
        assert pool.current is None
        with pytest.raises(MismatchError, match="holds no task: the swap to sun failed"):
            model(input_ids=ids)
        with pool.use("cars"):
            assert_same(model, randes_cli.transformers.from_bank(bank, "cars"))
            assert model(input_ids=ids).logits.isfinite().all()


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    model = randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        with pytest.raises(MissingError, match="no task 'tree'"), pool.use("tree"):
            pass
        model.head = nn.Linear(2, 2)
        with pytest.raises(MissingError, match=r"cars has no .* 'head\.weight'"), pool.use("cars"):
            pass
        del model.head
        model.resize_token_embeddings(100)
    with Pool(bank, model) as pool:
        before = model.lm_head.weight.clone()
        with pytest.raises(MismatchError, match=r"of task cars is \[96, 32\]"), pool.use("cars"):
            pass
        assert torch.equal(model.lm_head.weight, before)
