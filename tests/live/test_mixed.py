"""A batch whose rows ask different tasks is answered as each task's own model answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional as F  # noqa: N812

import randes_cli
from randes_cli import Bank, TaskInput, pack
from randes_cli.errors import MismatchError, MissingError, UsageError
from tests.live.many import (
    ASKED,
    TASKS,
    alone,
    assert_near,
    bank_of,
    batch_of,
    differ,
    options,
    pack_folders,
)
from tests.test_architectures import MODELS, SMALL, Made, bert, clip, gpt2, llama, perturb, t5


def logits(found: Any, row: int) -> torch.Tensor:
    """One row's answer; of CLIP the picture with its own words."""
    if "logits_per_image" in found:
        return torch.as_tensor(found.logits_per_image[row, row : row + 1])
    return torch.as_tensor(found.logits[row])


def attached(bank: Path, **more: Any) -> randes_cli.MixedModel:
    return randes_cli.attach(randes_cli.transformers.from_bank(bank), bank, **more)


@torch.inference_mode()
def assert_rows_are_their_tasks(
    mixed: randes_cli.MixedModel, models: dict[str | None, Any], batch: dict[str, torch.Tensor]
) -> None:
    with mixed.tasks(ASKED) as model:
        found = model(**batch)
    for row, task in enumerate(ASKED):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        assert_near(logits(found, row), logits(models[task](**one), 0))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_each_row_is_answered_by_its_own_task(
    make: Callable[[], Made], groups: int, tmp_path: Path
) -> None:
    bank = bank_of(make, tmp_path, options(groups=groups))
    models, batch = alone(bank), batch_of(make()[1])
    if make is not clip:
        differ(models, lambda model: model(**batch).logits.detach())
    for hold in ("dense", "codes"):
        assert_rows_are_their_tasks(attached(bank, hold=hold), models, batch)


@pytest.mark.parametrize("hold", ["dense", "codes"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_superpositions_of_few_bits_answer_alike(tmp_path: Path, bits: int, hold: str) -> None:
    bank = bank_of(llama, tmp_path, options(bits=bits, groups=2))
    assert_rows_are_their_tasks(attached(bank, hold=hold), alone(bank), batch_of(llama()[1]))


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


@pytest.mark.parametrize("hold", ["dense", "codes"])
@pytest.mark.parametrize("bits", [16, 2])
def test_a_share_of_the_elements_answers_alike(tmp_path: Path, bits: int, hold: str) -> None:
    bank = bank_of(wide_llama, tmp_path, options(bits=bits, share=2, groups=2))
    with Bank.open(bank) as opened:
        name = "model.layers.0.mlp.up_proj.weight"
        assert opened.retrieval("cars").share(name).every == 2
    batch = batch_of(wide_llama()[1])
    assert_rows_are_their_tasks(attached(bank, hold=hold), alone(bank), batch)


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
@pytest.mark.parametrize("make", [gpt2, llama, t5], ids=lambda make: make.__name__)
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


def heads(folder: Path) -> Path:
    """Classifiers with heads of other sizes, one without a pooler, and grown vocabularies."""
    torch.manual_seed(0)
    base = tf.BertForSequenceClassification(tf.BertConfig(**SMALL, num_labels=2))
    base.save_pretrained(folder / "base")
    sizes = {"cars": (96, 7), "sun": (101, 2), "dtd": (103, 4)}
    for number, (task, (words, labels)) in enumerate(sizes.items()):
        size = {**SMALL, "vocab_size": words}
        model = tf.BertForSequenceClassification(tf.BertConfig(**size, num_labels=labels))
        for name, value in base.state_dict().items():
            target = model.state_dict()[name]
            if name.startswith("bert"):
                target[: len(value)] = value
        perturb(model, number)
        if task == "dtd":  # what it left as it was
            model.bert.encoder.layer[1].load_state_dict(base.bert.encoder.layer[1].state_dict())
        model.save_pretrained(folder / task)
    return pack_folders(folder, options())


def test_heads_of_other_sizes_and_grown_vocabularies(tmp_path: Path) -> None:
    bank = heads(tmp_path)
    mixed, models = attached(bank), alone(bank)
    ids = batch_of({"input_ids": torch.zeros(1, 8, dtype=torch.long)})["input_ids"]
    ids[0, 2], ids[2, 3] = 100, 102  # words that sun and dtd added
    with torch.inference_mode(), mixed.tasks(ASKED) as model:
        found = model(input_ids=ids).logits
    assert found.shape == (5, 4 + 3)
    for row, task in enumerate(ASKED):
        wanted = models[task](input_ids=ids[row : row + 1]).logits[0].detach()
        assert_near(found[row, : len(wanted)], wanted)
        assert (found[row, len(wanted) :] == -torch.inf).all()
    with torch.inference_mode(), mixed.tasks(["sun", None]) as model:
        assert model(input_ids=ids[:2]).logits.shape == (2, 2)
        ids[1, 0] = 100  # no word of the base: no answer in its name
        assert model(input_ids=ids[:2]).logits[1].isnan().all()


def language_models(folder: Path, tied: bool) -> Path:
    """Llamas with a vocabulary that two tasks grew and one cut."""
    torch.manual_seed(0)
    size = {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    base = tf.LlamaForCausalLM(tf.LlamaConfig(**size))
    base.save_pretrained(folder / "base")
    for number, (task, words) in enumerate({"cars": 99, "sun": 104, "dtd": 90}.items()):
        model = tf.LlamaForCausalLM.from_pretrained(folder / "base")
        model.resize_token_embeddings(words)
        perturb(model, number)
        model.save_pretrained(folder / task)
    return pack_folders(folder, options(groups=2))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_a_vocabulary_of_another_size_in_and_out(tmp_path: Path, tied: bool, hold: str) -> None:
    bank = language_models(tmp_path, tied)
    mixed, models = attached(bank, hold=hold), alone(bank)
    ids = torch.randint(3, 90, (5, 6), generator=torch.Generator().manual_seed(1))
    ids[0, 3], ids[1, 2] = 103, 98
    with torch.inference_mode(), mixed.tasks(ASKED) as model:
        found = model(input_ids=ids).logits
        assert found.shape[-1] == 104
    for row, task in enumerate(ASKED):
        wanted = models[task](input_ids=ids[row : row + 1]).logits[0].detach()
        assert_near(found[row, :, : wanted.shape[-1]], wanted)
        assert (found[row, :, wanted.shape[-1] :] == -torch.inf).all()
    for task in ("cars", "sun", "dtd"):
        with torch.inference_mode(), mixed.tasks([task] * 2) as model:
            part = ids[2:4]
            assert_near(model(input_ids=part).logits, models[task](input_ids=part).logits)


def test_a_tied_weight_is_held_once(tmp_path: Path) -> None:
    tied = attached(language_models(tmp_path / "tied", True)).memory
    untied = attached(language_models(tmp_path / "untied", False)).memory
    assert untied["tasks"] - tied["tasks"] > 0.9 * 96 * 32 * 4


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


def test_names_are_checked_and_the_nearest_is_said(tmp_path: Path) -> None:
    bank = bank_of(gpt2, tmp_path)
    mixed = attached(bank)
    ids = gpt2()[1]["input_ids"]
    with (
        pytest.raises(MissingError, match="no task 'car'; the nearest is cars"),
        mixed.tasks(["sun", "car"]),
    ):
        pass
    with pytest.raises(MissingError, match="the nearest is sun"):
        mixed(ids, adapter_names=["snu"])
    with pytest.raises(MissingError, match="the nearest is cars"):
        attached(bank, tasks=["cras"])
    with pytest.raises(MissingError, match="between -1 and 2"), mixed.tasks(torch.tensor([3])):
        pass
    with pytest.raises(UsageError, match="no tasks are named"):
        mixed.model(input_ids=ids)
    with pytest.raises(UsageError, match="name a task for each row"), mixed.tasks("cars"):
        pass
    with pytest.raises(UsageError, match="names 3 tasks, and an input"):
        mixed(ids.repeat(5, 1), adapter_names=["cars", "sun", "dtd"])


def test_signs_that_do_not_factor_are_refused_with_what_to_do(tmp_path: Path) -> None:
    bank = bank_of(gpt2, tmp_path, options("hankel"))
    with pytest.raises(MismatchError, match=r"\(hankel\) do not factor.*two-sided, or.*Pool"):
        attached(bank)


def test_models_whose_rows_would_be_mistaken_are_refused(tmp_path: Path) -> None:
    def xlnet() -> Made:
        config = tf.XLNetConfig(vocab_size=96, d_model=32, n_layer=1, n_head=4, d_inner=48)
        return tf.XLNetLMHeadModel(config), {}

    with pytest.raises(MismatchError, match="xlnet puts time before the batch"):
        attached(bank_of(xlnet, tmp_path))

    from safetensors.torch import save_file

    layer = nn.LSTM(8, 8)
    for number, name in enumerate(("base", *TASKS)):
        perturb(layer, number)
        save_file(layer.state_dict(), tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in TASKS]
    pack(str(tmp_path / "base.safetensors"), tasks, tmp_path / "lstm.randes", options())
    with pytest.raises(MismatchError, match="recurrent layers cannot answer"):
        randes_cli.attach(nn.LSTM(8, 8), tmp_path / "lstm.randes")


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


@pytest.mark.parametrize("make", [gpt2, llama], ids=lambda make: make.__name__)
def test_a_compiled_model_serves_any_tasks(make: Callable[[], Made], tmp_path: Path) -> None:
    from torch._dynamo.testing import CompileCounter

    mixed, batch = attached(bank_of(make, tmp_path)), batch_of(make()[1])
    torch._dynamo.reset()
    counter = CompileCounter()
    run = torch.compile(mixed.model, backend=counter, fullgraph=True)
    for names in (ASKED, ASKED[::-1], ["cars", "cars", "sun", "sun", "sun"]):
        with torch.no_grad(), mixed.tasks(names):
            assert_near(run(**batch).logits, mixed.model(**batch).logits)
    assert counter.frame_count == 1


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


class ConvNet(nn.Module):
    """The parts of a timm network: windows that overlap or not, in groups, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv_dw = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.conv_pw = nn.Conv2d(16, 32, 1)
        self.conv = nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, 32)
        self.gamma = nn.Parameter(torch.ones(32, 1, 1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.stem(x)))
        x = self.conv_pw(x + self.conv_dw(x))
        x = (
            x
            + self.norm(F.gelu(self.conv(F.pad(x, (0, 0, 0, 0)))))
            .repeat_interleave(2, 2)
            .repeat_interleave(2, 3)
            * self.gamma
        )
        return torch.as_tensor(self.head(x.mean((2, 3))))


@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_a_convolutional_network_with_batch_norm(tmp_path: Path, hold: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = ConvNet().eval()
    for number, name in enumerate(("base", *TASKS)):
        perturb(model, number)
        with torch.no_grad():
            model.bn1.running_mean += 0.1 * torch.randn(16)  # type: ignore[operator]
            model.bn1.running_var += 0.1 * torch.rand(16)  # type: ignore[operator]
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    tasks = [TaskInput(name, str(tmp_path / f"{name}.safetensors")) for name in TASKS]
    bank = tmp_path / "bank.randes"
    pack(str(tmp_path / "base.safetensors"), tasks, bank, options(groups=2))
    mixed = randes_cli.attach(ConvNet().eval(), bank, hold=hold)
    pictures = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        found = mixed(pictures, adapter_names=ASKED)
    with Bank.open(bank) as opened:
        for row, task in enumerate(ASKED):
            if task:
                opened.load_into(model, task)
                assert_near(found[row], model(pictures[row : row + 1])[0].detach())


@pytest.mark.parametrize("hold", ["dense", "codes"])
def test_a_diffusers_unet(tmp_path: Path, hold: str) -> None:
    from tests.live.test_from_bank import unet

    torch.manual_seed(0)
    model = unet()
    model.save_pretrained(tmp_path / "base")
    for number, task in enumerate(TASKS):
        perturb(model, number)
        model.save_pretrained(tmp_path / task)
    bank = pack_folders(tmp_path, options(groups=2))
    mixed = randes_cli.attach(randes_cli.diffusers.from_bank(bank), bank, hold=hold)
    source = torch.Generator().manual_seed(1)
    picture = torch.randn(5, 4, 8, 8, generator=source)
    words = torch.randn(5, 3, 8, generator=source)
    with torch.inference_mode():
        found = mixed(picture, 3, words, adapter_names=ASKED).sample
        for row, asked in enumerate(ASKED):
            one = randes_cli.diffusers.from_bank(bank, asked)
            wanted = one(picture[row : row + 1], 3, words[row : row + 1]).sample
            assert_near(found[row], wanted[0])
