"""Models that layers alone would mistake: what is known of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf
from torch import nn

import randes_cli
from randes_cli import Pool
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
from tests.models import IDS, SMALL, Made


def bros() -> Made:
    """Boxes by pairs of places, before the batch."""
    config = tf.BrosConfig(**{**SMALL, "hidden_size": 64}, num_labels=3)
    return tf.BrosForTokenClassification(config), {"input_ids": IDS}


def rwkv() -> Made:
    config = tf.RwkvConfig(vocab_size=96, hidden_size=32, num_hidden_layers=3, rescale_every=2)
    return tf.RwkvForCausalLM(config), {"input_ids": IDS}


def marian() -> Made:
    config = tf.MarianConfig(
        vocab_size=96, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=48,
        decoder_ffn_dim=48, encoder_attention_heads=4, decoder_attention_heads=4,
        pad_token_id=0, decoder_start_token_id=0, eos_token_id=1, max_position_embeddings=64,
    )  # fmt: skip
    model = tf.MarianMTModel(config)
    return model, {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]}


def test_pairs_of_places_before_the_batch(tmp_path: Path) -> None:
    bank = bank_of(bros, tmp_path, options(groups=2))
    models, mixed = alone(bank), attached(bank)
    for length in (5, 8, 10):  # as many as rows, and twice as many
        ids = batch_of({"input_ids": torch.zeros(1, length, dtype=torch.long)})
        boxes = torch.rand(5, length, 4, generator=torch.Generator().manual_seed(2))
        assert_rows_are_their_tasks(mixed, models, {**ids, "bbox": boxes})


def test_a_model_that_divides_its_weights_answers_without_that(tmp_path: Path) -> None:
    bank = bank_of(rwkv, tmp_path)
    says, batch = "divides its weights when it runs, once: build", batch_of({"input_ids": IDS})
    models = alone(bank)
    with pytest.raises(MismatchError, match=says):
        attached(bank)
    with (
        Pool(bank, randes_cli.transformers.from_bank(bank)) as pool,
        pytest.raises(MismatchError, match=says),
        pool.use("sun"),
    ):
        pass
    model = randes_cli.transformers.from_bank(bank, rescale_every=0)
    mixed = randes_cli.attach(model, bank)
    assert_rows_are_their_tasks(mixed, models, batch)
    with Pool(bank, mixed.detach()) as pool, torch.no_grad():
        for task in ("sun", "cars", "sun"):
            with pool.use(task) as one:
                assert_near(one(**batch).logits, models[task](**batch).logits)


def test_what_a_model_is_saved_without_is_its_own(tmp_path: Path) -> None:
    bank = bank_of(marian, tmp_path)
    models, batch = alone(bank), batch_of(marian()[1])
    assert_rows_are_their_tasks(attached(bank), models, batch)
    with (
        Pool(bank, randes_cli.transformers.from_bank(bank)) as pool,
        pool.use("sun") as model,
        torch.no_grad(),
    ):
        assert torch.equal(model(**batch).logits, models["sun"](**batch).logits)


class Before(nn.Module):
    """Matrices that come before what they are multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.several = (
            nn.Parameter(torch.randn(8, 6)),
            nn.Parameter(torch.randn(2, 4, 8)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [n, 6, tokens]
        return self.several[1] @ (self.first @ x)


def test_matrices_before_their_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Before(), tmp_path, options(groups=2))
    assert_module_answers(Before(), bank, torch.randn(5, 6, 10))
    mixed = randes_cli.attach(Before(), bank)
    with torch.no_grad():
        found = mixed(torch.ones(5, 6, 3), adapter_names=ASKED)
    assert_near(found[0], found[3])
