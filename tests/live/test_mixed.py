"""A batch whose rows ask different tasks is answered as each task's own model answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import randes_cli
from randes_cli import Bank
from tests.live.many import (
    ASKED,
    alone,
    assert_near,
    assert_rows_answered,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    differ,
    options,
    pack_folders,
)
from tests.models import MODELS, Made, bert, clip, gpt2, llama, t5


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_each_row_is_answered_by_its_own_task(make: Callable[[], Made], tmp_path: Path) -> None:
    bank = bank_of(make, tmp_path, options(groups=2))
    models, batch = alone(bank), batch_of(make()[1])
    if make is not clip:
        differ(models, lambda model: model(**batch).logits.detach())
    for hold in ("dense", "codes"):
        assert_rows_are_their_tasks(attached(bank, hold=hold), models, batch)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_superpositions_of_few_bits_answer_alike(tmp_path: Path, bits: int) -> None:
    bank = bank_of(llama, tmp_path, options(bits=bits, groups=2))
    assert_rows_answered(bank, batch_of(llama()[1]))


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize("transform", ["two-sided", "ta", "s", "shift"])
def test_other_signs_that_factor_work_too(tmp_path: Path, transform: str) -> None:
    bank = bank_of(llama, tmp_path, options(transform))
    assert_rows_are_their_tasks(attached(bank), alone(bank), batch_of(llama()[1]))


def wide_llama() -> Made:
    """Matrices that are large enough for a share of their elements."""
    config = tf.LlamaConfig(
        hidden_size=96,
        intermediate_size=161,
        vocab_size=100,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return tf.LlamaForCausalLM(config), llama()[1]


@pytest.mark.parametrize("bits", [16, 2])
def test_a_share_of_the_elements_answers_alike(tmp_path: Path, bits: int) -> None:
    bank = bank_of(wide_llama, tmp_path, options(bits=bits, share=2, groups=2))
    with Bank.open(bank) as opened:
        name = "model.layers.0.mlp.up_proj.weight"
        assert opened.retrieval("cars").share(name).every == 2
    assert_rows_answered(bank, batch_of(wide_llama()[1]))


def test_one_task_for_all_rows_and_any_number_of_rows(tmp_path: Path) -> None:
    bank = bank_of(gpt2, tmp_path)
    mixed, models = attached(bank), alone(bank)
    ids = batch_of(gpt2()[1])["input_ids"]
    with torch.inference_mode(), mixed.tasks(["sun"]) as model:
        assert_near(model(input_ids=ids).logits, models["sun"](input_ids=ids).logits)


def test_each_token_may_have_its_own_task(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path, options(groups=2))
    mixed, models = attached(bank), alone(bank)
    ids = batch_of(llama()[1])["input_ids"][:3, :6]
    packed = ids.reshape(1, -1)
    places = torch.arange(6).repeat(3)[None]
    owner = torch.arange(3).repeat_interleave(6)
    mask = (owner[:, None] == owner) & (torch.arange(18)[:, None] >= torch.arange(18))
    numbers = torch.tensor([[mixed.names.index("sun")] * 6 + [-1] * 6 + [0] * 6])
    for named in (numbers, [["sun"] * 6 + [None] * 6 + ["cars"] * 6]):
        with torch.inference_mode(), mixed.tasks(named) as model:
            found = model(
                input_ids=packed, position_ids=places, attention_mask=mask[None, None]
            ).logits
        for row, task in enumerate(("sun", None, "cars")):
            wanted = models[task](input_ids=ids[row : row + 1]).logits[0].detach()
            assert_near(found[0, 6 * row : 6 * row + 6], wanted)


GENERATE: dict[str, dict[str, Any]] = {
    "greedy": {},
    "static": {"cache_implementation": "static"},
    "without a cache": {"use_cache": False},
    "beams": {"num_beams": 3},
    "several beams": {"num_beams": 4, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "temperature": 1.5},
    "several samples": {"do_sample": True, "num_return_sequences": 2},
}


@pytest.mark.parametrize("way", GENERATE)
@pytest.mark.parametrize("make", [llama, t5], ids=lambda make: make.__name__)
def test_generation_is_each_tasks_own(make: Callable[[], Made], way: str, tmp_path: Path) -> None:
    bank = bank_of(make, tmp_path, options(groups=2))
    mixed, models = attached(bank), alone(bank)
    ids = batch_of({"input_ids": torch.zeros(1, 7, dtype=torch.long)})["input_ids"]
    mask = torch.ones_like(ids)
    for row in range(len(ASKED)):
        mask[row, :row] = 0  # padded on the left
    given = {"attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}
    if make is t5:
        given["decoder_start_token_id"] = 0
    given.update(GENERATE[way])
    torch.manual_seed(7)
    found = mixed.generate(ids, adapter_names=ASKED, **given)
    each = len(found) // len(ASKED)
    wanted = {}
    for task, model in models.items():
        torch.manual_seed(7)  # the same draws: a row of a batch takes its own
        wanted[task] = model.generate(ids, **given)
    for row, task in enumerate(ASKED):
        mine = slice(row * each, (row + 1) * each)
        assert torch.equal(found[mine], wanted[task][mine]), (row, task)
    assert any(not torch.equal(wanted[None], one) for one in wanted.values())


def test_what_a_task_was_saved_without_is_the_bases_and_is_said(tmp_path: Path) -> None:
    bank = bank_of(bert, tmp_path)
    from safetensors.torch import load_file, save_file

    path = tmp_path / "sun" / "model.safetensors"
    state = load_file(path)
    lost = "bert.pooler.dense.bias"
    base = load_file(tmp_path / "base" / "model.safetensors")[lost]
    del state[lost]
    save_file(state, path, {"format": "pt"})
    bank = pack_folders(tmp_path, options())
    mixed = attached(bank)
    assert mixed.lacking == (("sun", lost),)
    models = alone(bank)
    models["sun"].bert.pooler.dense.bias.data.copy_(base)
    assert_rows_are_their_tasks(mixed, models, batch_of(bert()[1]))


def test_detaching_gives_the_base_back(tmp_path: Path) -> None:
    bank = bank_of(MODELS[9], tmp_path)
    base = randes_cli.transformers.from_bank(bank)
    batch = batch_of(MODELS[9]()[1])
    before = base(**batch).logits
    state = {name: value.clone() for name, value in base.state_dict().items()}
    mixed = randes_cli.attach(base, bank)
    assert mixed(**batch, adapter_names=ASKED).logits.shape == before.shape
    for name, value in mixed.detach().state_dict().items():
        assert type(value) is torch.Tensor and torch.equal(value, state[name])
    assert torch.equal(base(**batch).logits, before)


def test_detaching_gives_functions_of_the_models_own_back(tmp_path: Path) -> None:
    """As accelerate's hooks are."""
    bank = bank_of(llama, tmp_path)
    model: Any = randes_cli.transformers.from_bank(bank)
    model.generate = own = partial(type(model).generate, model)
    randes_cli.attach(model, bank).detach()
    assert model.generate is own


def test_the_base_is_the_banks_whatever_the_model_held(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    other = tf.LlamaForCausalLM(randes_cli.transformers.from_bank(bank).config).eval()
    mixed = randes_cli.attach(other, bank)
    assert_rows_are_their_tasks(mixed, alone(bank), batch_of(llama()[1]))


def test_some_tasks_alone_may_be_attached(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    mixed = attached(bank, tasks=["dtd", "cars"])
    assert mixed.names == ("dtd", "cars")
    ids = batch_of(llama()[1])["input_ids"][:2]
    with Bank.open(bank) as opened:
        wanted = randes_cli.transformers.from_bank(opened, "cars")
    found = mixed(input_ids=ids, adapter_names=["dtd", "cars"]).logits[1]
    assert_near(found.detach(), wanted(input_ids=ids).logits[1].detach())


@pytest.mark.parametrize(
    ("make", "more", "hold"),
    [
        (t5, {"bits": 3}, "codes"),
        (wide_llama, {"bits": 1, "share": 4}, "codes"),
        (llama, {"groups": 3}, "dense"),
        (gpt2, {"bits": 2, "groups": 2}, "codes"),
    ],
)
def test_a_compiled_model_serves_any_tasks(
    make: Callable[[], Made], more: dict[str, Any], hold: str, tmp_path: Path
) -> None:
    from torch._dynamo.testing import CompileCounter

    mixed = attached(bank_of(make, tmp_path, options(**more)), hold=hold)
    batch = batch_of(make()[1])
    torch._dynamo.reset()
    counter = CompileCounter()
    run = torch.compile(mixed.model, backend=counter, fullgraph=True)
    for names in (ASKED, ASKED[::-1], ["cars", "cars", "sun", "sun", "sun"]):
        with torch.no_grad(), mixed.tasks(names):
            assert_near(run(**batch).logits, mixed.model(**batch).logits)
    assert counter.frame_count == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_autocast_answers_as_it_does_of_the_unpacked_models(tmp_path: Path, groups: int) -> None:
    bank = bank_of(llama, tmp_path, options(groups=groups))
    models, batch = alone(bank), batch_of(llama()[1])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = attached(bank)(**batch, adapter_names=ASKED).logits
    assert found.dtype == torch.bfloat16
    for row, task in enumerate(ASKED):
        with torch.inference_mode():
            exact = models[task](**batch).logits[row]
            with torch.autocast("cpu", torch.bfloat16):
                rounded = models[task](**batch).logits[row].float()
        assert (found[row].float() - exact).norm() <= 2 * (rounded - exact).norm()


def test_half_precision_is_as_near_as_the_unpacked_models(tmp_path: Path) -> None:
    bank = bank_of(llama, tmp_path)
    exact, batch = alone(bank), batch_of(llama()[1])
    for dtype in (torch.bfloat16, torch.float16):
        model = randes_cli.transformers.from_bank(bank, dtype=dtype)
        mixed = randes_cli.attach(model, bank)
        with torch.inference_mode():
            found = mixed(**batch, adapter_names=ASKED).logits.float()
            for row, task in enumerate(ASKED):
                one = {name: value[row : row + 1] for name, value in batch.items()}
                wanted = exact[task](**one).logits[0]
                rounded = randes_cli.transformers.from_bank(bank, task, dtype=dtype)
                error = (rounded(**one).logits[0].float() - wanted).abs().max()
                assert (found[row] - wanted).abs().max() <= 2 * error
