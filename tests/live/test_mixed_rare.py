"""Families that put time first, turn their experts, or compute with parameters in rare ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

import randes_cli
from randes_cli.errors import MismatchError
from tests.live.many import (
    ASKED,
    alone,
    assert_near,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    options,
)
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states
from tests.models import IDS, PIXELS, SMALL, Made


def longformer() -> Made:
    small = {**SMALL, "num_hidden_layers": 1}
    config = tf.LongformerConfig(**small, attention_window=4, num_labels=3)
    return tf.LongformerForSequenceClassification(config), {"input_ids": IDS[:, :5]}


def led() -> Made:
    config = tf.LEDConfig(d_model=32, vocab_size=96, encoder_layers=1, decoder_layers=1)
    config.encoder_ffn_dim = config.decoder_ffn_dim = 48
    config.encoder_attention_heads = config.decoder_attention_heads = 4
    config.attention_window, config.max_encoder_position_embeddings = 4, 64
    model = tf.LEDForConditionalGeneration(config)
    return model, {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}


def fsmt() -> Made:
    config = tf.FSMTConfig(src_vocab_size=96, tgt_vocab_size=96, d_model=32, encoder_layers=1)
    config.decoder_layers, config.encoder_ffn_dim, config.decoder_ffn_dim = 1, 48, 48
    config.encoder_attention_heads = config.decoder_attention_heads = 4
    model = tf.FSMTForConditionalGeneration(config)
    return model, {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]}


def mlcd() -> Made:
    size = {name: value for name, value in SMALL.items() if name != "vocab_size"}
    model = tf.MLCDVisionModel(tf.MLCDVisionConfig(**size, image_size=32, patch_size=8))
    return model, {"pixel_values": PIXELS}


def sam() -> Made:
    size = {"hidden_size": 32, "mlp_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    windows = {"window_size": 3, "global_attn_indexes": [1]}
    picture = {"image_size": 32, "patch_size": 8, "output_channels": 16}
    config = tf.SamVisionConfig(**size, **windows, **picture)
    return tf.SamVisionModel(config), {"pixel_values": PIXELS}


def cpmant() -> Made:
    config = tf.CpmAntConfig(
        vocab_size=96, hidden_size=32, num_attention_heads=4, dim_head=8, dim_ff=48,
        num_hidden_layers=1,
    )  # fmt: skip
    return tf.CpmAntForCausalLM(config), {"input_ids": IDS}


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize(
    "make", [longformer, led, fsmt, mlcd, sam, cpmant], ids=lambda make: make.__name__
)
def test_families_that_are_rare(make: Callable[[], Made], tmp_path: Path) -> None:
    bank = bank_of(make, tmp_path, options(groups=2))
    models, batch = alone(bank), batch_of(make()[1])
    mixed = attached(bank)
    if make in (mlcd, sam):
        with torch.inference_mode(), mixed.tasks(ASKED) as model:
            found = model(**batch).last_hidden_state
        for row, task in enumerate(ASKED):
            one = models[task](pixel_values=batch["pixel_values"][row : row + 1])
            assert_near(found[row], one.last_hidden_state[0].detach())
        return
    assert_rows_are_their_tasks(mixed, models, batch)
    if make is longformer:  # tokens that all others see
        mask = torch.zeros_like(batch["input_ids"])
        mask[:, 0] = mask[2, 3] = 1
        batch["global_attention_mask"] = mask
        assert_rows_are_their_tasks(mixed, models, batch)
    elif make is not cpmant:
        given = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2, "pad_token_id": 0}
        ids = batch["input_ids"]
        found = mixed.generate(ids, adapter_names=ASKED, **given)
        for row, task in enumerate(ASKED):
            assert torch.equal(found[row], models[task].generate(ids, **given)[row])


def test_time_first_layers_are_as_they_were_after_detach(tmp_path: Path) -> None:
    bank = bank_of(longformer, tmp_path)
    plain = attached(bank).detach()
    assert not any("forward" in vars(module) for module in plain.modules())
    ids = batch_of(longformer()[1])["input_ids"]
    assert_near(plain(ids).logits, alone(bank, [None])[None](ids).logits.detach())


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize("width", [24, 32], ids=["oblong", "square"])
def test_experts_that_are_turned_while_they_are_loaded(width: int, tmp_path: Path) -> None:
    text = {**SMALL, "num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 8}
    text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": width}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
    }
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 16, "patch_size": 4}
    vision["deepstack_visual_indexes"] = [0]

    def make() -> Made:
        config = tf.Qwen3VLMoeConfig(text_config=text, vision_config=vision)
        return tf.Qwen3VLMoeForConditionalGeneration(config), {"input_ids": IDS}

    for hold in ("dense", "codes"):
        bank = bank_of(make, tmp_path / hold, options(groups=2, bits=4))
        assert_rows_are_their_tasks(attached(bank, hold=hold), alone(bank), batch_of(make()[1]))


class Repeats(nn.Module):
    """Factors of a product, repeated by the batch, or by as many as the model has of something."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.table, self.own = nn.Parameter(torch.randn(4, 8, 6)), own

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, 4, 3, 6], or [n, 5, 4, 3, 6]
        if self.own:  # five windows
            return torch.matmul(x.flatten(1, 2), self.table.repeat(5, 1, 1).transpose(1, 2))
        factors = self.table.repeat(len(x), 1, 1).transpose(-1, -2)
        return torch.bmm(x.flatten(0, 1), factors).reshape(len(x), 4, 3, 8)


def test_what_is_repeated_by_the_number_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Repeats(own=False)
    (tmp_path / "batch").mkdir()
    bank = bank_of_states(model, tmp_path / "batch", options(groups=2))
    assert_module_answers(model, bank, torch.randn(5, 4, 3, 6))
    other = Repeats(own=True)
    (tmp_path / "own").mkdir()
    bank = bank_of_states(other, tmp_path / "own", options(groups=2))
    with pytest.raises(MismatchError, match="is repeated 5 times: whether"):
        assert_module_answers(other, bank, torch.randn(5, 5, 4, 3, 6))


class Upwards(nn.Module):
    """Convolutions that are transposed, with windows that overlap or not, and a marked token."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.ConvTranspose1d(8, 12, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.two = nn.ConvTranspose1d(12, 16, 2, stride=2, bias=False)
        self.normed = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(16, 8, 4, stride=2))
        self.mark = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[x[..., 0] > 0] = self.mark
        return torch.as_tensor(self.normed(self.two(self.one(x.mT))))


def test_convolutions_that_are_transposed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Upwards()
    bank = bank_of_states(model, tmp_path, options(groups=2))
    with pytest.warns(UserWarning, match="answered task by task"):
        assert_module_answers(model, bank, torch.randn(5, 7, 8))


class Sums(nn.Module):
    """Products by letters: of what each row has, or of what all share."""

    def __init__(self, letters: str) -> None:
        super().__init__()
        self.table, self.letters = nn.Parameter(torch.randn(6, 3, 8)), letters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum(self.letters, x, self.table)


def test_products_by_letters_need_the_batch_by_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Sums("bqd,dnh->bnhq"), tmp_path, options(groups=2))
    assert_module_answers(Sums("bqd,dnh->bnhq"), bank, torch.randn(5, 4, 6))
    with pytest.raises(MismatchError, match="einsum td,dnh->tnh"):
        assert_module_answers(Sums("td,dnh->tnh"), bank, torch.randn(10, 6))


class Distances(nn.Module):
    """As in SpeechT5: distances of all pairs of places, met where places are first."""

    def __init__(self) -> None:
        super().__init__()
        self.pe_k, self.rows = nn.Embedding(12, 8), nn.Embedding(10, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, 5 or 10, 8]
        places = torch.arange(x.shape[1])
        x = x + self.rows(places)
        far = (places[:, None] - places).clamp(-5, 5) + 5
        bias = torch.matmul(x.transpose(0, 1).contiguous(), self.pe_k(far).transpose(1, 2))
        return bias.transpose(0, 1) / 8


def test_places_and_distances_as_many_as_rows_are_no_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Distances(), tmp_path, options(groups=2))
    assert_module_answers(Distances(), bank, torch.randn(5, 10, 8))
    with pytest.raises(MismatchError, match="may be rows or positions"):
        assert_module_answers(Distances(), bank, torch.randn(5, 5, 8))


class Grouped(nn.Module):
    """As in RecurrentGemma: matrices for groups of channels, given all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6, 6)), nn.Parameter(torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, tokens, 24]
        given = x.reshape(-1, 4, 6).permute(1, 0, 2)
        made = torch.baddbmm(self.bias[:, None, :], given, self.weight)
        return made.permute(1, 0, 2).reshape(x.shape)


def test_matrices_of_groups_of_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Grouped(), tmp_path, options(groups=2))
    assert_module_answers(Grouped(), bank, torch.randn(5, 7, 24))
    mixed = randes_cli.attach(Grouped(), bank)
    x, tokens = torch.randn(3, 4, 24), torch.arange(12).reshape(3, 4) % 4 - 1
    with torch.inference_mode():
        found = mixed(x, adapter_names=tokens)
        for number, task in enumerate((*mixed.names, None)):
            mine = tokens == (-1 if task is None else number)
            assert_near(found[mine], mixed(x, adapter_names=[task])[mine])


class Shared(nn.Module):
    """Adds what it takes for a table that rows share to inputs of as many dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.cat([self.table] * len(x))


def test_an_answer_that_is_not_by_rows_is_refused(tmp_path: Path) -> None:
    bank = bank_of_states(Shared(), tmp_path, options())
    with pytest.raises(MismatchError, match="Shared: puts parameters and its inputs together"):
        assert_module_answers(Shared(), bank, torch.randn(5, 4, 8))
