"""Whatever disturbs a pool, a block sees its own task whole, and the next one may come."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

import randes_cli
from randes_cli import Pool, TaskInput, add, remove
from randes_cli.errors import BankDamaged, UsageError
from tests.live.many import TASKS, bank_of, options
from tests.live.test_from_bank import assert_same
from tests.models import gpt2, llama, qwen3

FORMS = {
    "two-sided": options(),
    "2 bits": options(bits=2, groups=2),
    "a half, 4 bits": options(bits=4, groups=2, share=2),
    "srsf": options("srsf"),
}


def states(bank: Path, **more: Any) -> dict[str, dict[str, torch.Tensor]]:
    opened = randes_cli.transformers.from_bank
    return {task: opened(bank, task, **more).state_dict() for task in TASKS}


def test_a_model_and_its_parts_run_in_a_block_alone(tmp_path: Path) -> None:
    model: Any = randes_cli.transformers.from_bank(bank_of(llama, tmp_path))
    ids, inside = torch.arange(4)[None], torch.ones(1, 2, 32)
    runs: list[Callable[[], Any]] = [
        lambda: model(ids),
        lambda: model.model(ids),
        lambda: model.get_input_embeddings()(ids),
        lambda: model.model.layers[0](inside),
        lambda: model.lm_head(inside),
    ]
    with Pool(tmp_path / "bank.randes", model) as pool:
        for _ in range(2):
            for run in runs:
                with pytest.raises(UsageError, match="run the model inside"):
                    run()
            with pool.use("sun"):
                model(ids), model.model(ids), model.lm_head(inside)
        model.model.layers[0].mlp.act_fn(inside)  # has nothing of a task
    model.model(ids), model.lm_head(inside)


def is_whole(model: nn.Module, wanted: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_threads_that_wait_give_up_and_fail_see_their_task_whole(form: str, tmp_path: Path) -> None:
    bank = bank_of(qwen3, tmp_path, FORMS[form])
    wanted, wrong = states(bank), list[str]()

    def work(pool: Pool, seed: int) -> None:
        choose = Random(seed)
        for _ in range(25):
            task = choose.choice(TASKS)
            try:
                with pool.use(task, timeout=choose.choice([None, 0, 0.001, 300])) as model:
                    if not is_whole(model, wanted[task]):
                        wrong.append(task)
                    if choose.random() < 0.3:
                        with pool.use(task):  # while others wait
                            assert pool.current == task
                    if choose.random() < 0.2:
                        raise ArithmeticError
            except (TimeoutError, ArithmeticError):
                pass

    with Pool(bank, randes_cli.transformers.from_bank(bank)) as pool:
        threads = [threading.Thread(target=work, args=(pool, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == [] and not pool._queue and not pool._users


def test_a_block_in_a_block_of_its_task_does_not_wait_for_who_waits_for_it(tmp_path: Path) -> None:
    bank = bank_of(gpt2, tmp_path)
    asked = threading.Event()
    with Pool(bank, randes_cli.transformers.from_bank(bank)) as pool:
        with pool.use("cars") as model, torch.no_grad():
            next(model.parameters()).mul_(1)  # written to, as by who trains
            other = threading.Thread(target=lambda: pool.use("sun").__enter__())
            other.start()
            while not pool._queue:
                asked.wait(0.001)
            with pool.use("cars", timeout=300):
                assert pool.current == "cars"
            with pytest.raises(UsageError, match="another task is open"), pool.use("dtd"):
                pass
        other.join()
        assert pool.current == "sun"


@pytest.mark.parametrize("step", ["_planned", "_write"])
def test_a_parameter_that_is_replaced_amid_a_swap_is_noticed(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(gpt2, tmp_path)
    model, wanted = randes_cli.transformers.from_bank(bank), states(bank)["cars"]
    with Pool(bank, model) as pool:
        run = getattr(pool, step)

        def replaced(*given: Any) -> Any:
            monkeypatch.undo()
            made, layer = run(*given), model.transformer.h[0].mlp.c_fc
            layer.weight = nn.Parameter(torch.zeros_like(layer.weight))
            for _ in range(2):
                with suppress(TimeoutError), pool.use("sun", timeout=0):
                    pass
            return made

        monkeypatch.setattr(pool, step, replaced)
        with pool.use("cars"):
            assert step == "_write" or is_whole(model, wanted)
        with pool.use("cars"):
            assert is_whole(model, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupted_swap_leaves_no_mixture_and_no_lock(form: str, tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, FORMS[form])
    wanted, choose = states(bank), Random(0)
    stop, armed, interrupted = threading.Event(), False, 0

    def answer(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def press() -> None:
        while not stop.wait(0.004 * choose.random()):
            os.kill(os.getpid(), signal.SIGINT)

    before, presses = signal.signal(signal.SIGINT, answer), threading.Thread(target=press)
    presses.start()
    try:
        with Pool(bank, randes_cli.transformers.from_bank(bank)) as pool:
            while interrupted < 60:
                task = choose.choice(TASKS)
                try:
                    armed = True
                    with pool.use(task, timeout=300) as model:
                        armed = False
                        assert is_whole(model, wanted[task])
                except KeyboardInterrupt:
                    interrupted += 1
            assert not pool._queue and not pool._users
    finally:
        stop.set()
        presses.join()
        signal.signal(signal.SIGINT, before)


@torch.no_grad()
def multiplied(model: nn.Module) -> None:
    next(model.parameters()).mul_(2)


def moved(model: nn.Module) -> None:
    parameter = next(model.parameters())
    parameter.data = torch.zeros_like(parameter)


def cast_and_back(model: nn.Module) -> None:
    model.to(torch.bfloat16).to(torch.float32)


def replaced(model: nn.Module) -> None:
    layer: Any = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    layer.weight = nn.Parameter(torch.zeros_like(layer.weight))


@pytest.mark.parametrize("change", [multiplied, moved, cast_and_back, replaced])
def test_what_somebody_wrote_meanwhile_is_written_over(
    change: Callable[[nn.Module], None], tmp_path: Path
) -> None:
    bank = bank_of(llama, tmp_path)
    wanted, model = states(bank)["sun"], randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        for _ in range(2):
            with pool.use("sun"):
                assert is_whole(model, wanted)
            change(model)
        with pool.use("sun"):
            assert is_whole(model, wanted)


def test_a_bank_that_changes_meanwhile_is_the_one_that_was_opened(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options(groups=2))
    wanted, model = states(bank), randes_cli.transformers.from_bank(bank)
    with Pool(bank, model) as pool:
        with pool.use("cars"):
            pass
        remove(bank, ["sun"], checkpoints={"sun": str(tmp_path / "sun")})
        add(bank, [TaskInput("more", str(tmp_path / "sun"))])
        for task in ("sun", "dtd", "cars"):
            with pool.use(task):
                assert is_whole(model, wanted[task])
        bank.unlink()
        with pool.use("sun"):
            assert is_whole(model, wanted["sun"])


@pytest.mark.parametrize("resident", [True, False])
def test_damage_amid_a_swap_is_said_and_the_others_still_come(
    resident: bool, tmp_path: Path
) -> None:
    bank = bank_of(llama, tmp_path, options(groups=3))
    wanted, model = states(bank), randes_cli.transformers.from_bank(bank)
    with Pool(bank, model, resident=resident) as pool:
        with pool.use("cars"):
            pass
        with randes_cli.Bank.open(bank) as opened:
            start = opened.file.header.starts["sum/1/model.layers.1.mlp.up_proj.weight"]
        with bank.open("r+b") as file:
            file.seek(start)
            byte = file.read(1)[0]
            file.seek(start)
            file.write(bytes([byte ^ 1]))
        for _ in range(2):
            with pytest.raises(BankDamaged), pool.use("sun"):
                pass
            assert pool.current is None
            for task in ("dtd", "cars"):
                with pool.use(task):
                    assert is_whole(model, wanted[task])
        assert_same(model, randes_cli.transformers.from_bank(bank, "cars"))
