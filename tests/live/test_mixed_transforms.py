"""Transforms whose signs do not factor, shuffled layers and exact tensors: right, task by task."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import randes_cli
from randes_cli import PackOptions, Transform
from randes_cli.specs import Rest
from tests.live.many import (
    ASKED,
    alone,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    options,
)
from tests.models import (
    MODELS,
    Made,
    clip,
    gpt2,
    llama,
    mixtral,
    qwen3_moe,
    roberta,
    t5,
    whisper,
)

SOME = [roberta, gpt2, t5, clip, llama, qwen3_moe, mixtral, whisper]
WARNED = "are answered task by task: a step costs about a swap for each task"


@pytest.mark.parametrize("make", SOME, ids=lambda make: make.__name__)
def test_signs_that_do_not_factor_answer_task_by_task(
    make: Callable[[], Made], tmp_path: Path
) -> None:
    bank = bank_of(make, tmp_path, options("hankel", groups=2))
    models, batch = alone(bank), batch_of(make()[1])
    for hold in ("dense", "codes"):
        with pytest.warns(UserWarning, match=WARNED):
            mixed = attached(bank, hold=hold)
        assert mixed.by_task
        assert_rows_are_their_tasks(mixed, models, batch)


@pytest.mark.parametrize("transform", ["hankel", "srsf", "rsf"])
@pytest.mark.parametrize("bits", [16, 2])
@pytest.mark.parametrize("share", [1, 2])
@pytest.mark.filterwarnings("ignore:.*are answered task by task")
def test_other_signs_in_few_bits_and_shares(
    tmp_path: Path, transform: str, bits: int, share: int
) -> None:
    from tests.live.test_mixed import wide_llama

    bank = bank_of(wide_llama, tmp_path, options(transform, bits=bits, share=share, groups=2))
    models, batch = alone(bank), batch_of(wide_llama()[1])
    for hold in ("dense", "codes"):
        assert_rows_are_their_tasks(attached(bank, hold=hold), models, batch)


def test_where_warnings_are_errors_the_model_stays_as_it_was(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options("hankel"))
    model = randes_cli.transformers.from_bank(bank)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match=WARNED):
            randes_cli.attach(model, bank)
    model.save_pretrained(tmp_path / "base")  # it has no tasks that would refuse this
    with pytest.warns(UserWarning, match=WARNED):
        randes_cli.attach(model, bank)


def test_it_is_said_where_and_only_where_the_number_of_tasks_matters(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for transform in ("two-sided", "ta", "rsf"):
            assert attached(bank_of(llama, tmp_path, options(transform))).by_task == ()
    with pytest.warns(UserWarning, match=WARNED):
        mixed = attached(bank_of(llama, tmp_path, options("srsf")))
    layers = {name for name in mixed.by_task if ".layers." in name}
    assert layers == set(mixed.by_task) and "model.layers.0.mlp.up_proj.weight" in layers


def exact() -> PackOptions:
    transform = Transform.from_preset("two-sided")
    return PackOptions(
        transform=Transform(
            shuffle=transform.shuffle, signs=transform.signs, targets="^no such$", rest=Rest.own
        )
    )


@pytest.mark.parametrize("make", [gpt2, llama, mixtral, MODELS[0]], ids=lambda make: make.__name__)
def test_a_bank_of_exact_tensors_answers_task_by_task(
    make: Callable[[], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(make, tmp_path, exact())
    models, batch = alone(bank), batch_of(make()[1])
    assert_rows_are_their_tasks(attached(bank), models, batch)  # as tables: they are small
    monkeypatch.setattr("randes_cli.live.attaching.MOST_TABLE", 0)
    with pytest.warns(UserWarning, match=WARNED):
        mixed = attached(bank)
    assert_rows_are_their_tasks(mixed, models, batch)


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
def test_generation_and_tokens_of_several_tasks(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options("hankel"))
    mixed, models = attached(bank), alone(bank)
    ids = batch_of(llama()[1])["input_ids"]
    given = {"max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": 0, "num_beams": 2}
    found = mixed.generate(ids, adapter_names=ASKED, **given)
    for row, task in enumerate(ASKED):
        assert torch.equal(found[row], models[task].generate(ids, **given)[row])


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize("transform", ["two-sided", "hankel", "srsf"])
def test_nothing_is_retrieved_twice(
    transform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from randes_cli.read.retrieve import Retrieval

    bank = bank_of(llama, tmp_path, options(transform))
    model = randes_cli.transformers.from_bank(bank)
    read: list[tuple[str | None, str]] = []
    before = Retrieval.read

    def counted(self: Retrieval, name: str) -> object:
        read.append((self.task.name, name))
        return before(self, name)

    monkeypatch.setattr(Retrieval, "read", counted)
    mixed = randes_cli.attach(model, bank)
    assert read and len(read) == len(set(read))
    read.clear()
    ids = batch_of(llama()[1])["input_ids"]
    with torch.inference_mode():
        for _ in range(2):
            mixed(input_ids=ids, adapter_names=ASKED)
    assert read == []
