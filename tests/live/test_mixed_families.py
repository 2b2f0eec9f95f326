"""Families whose layers are written in ways of their own: each row as its own task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf

from tests.live.many import (
    ASKED,
    alone,
    assert_rows_answered,
    assert_rows_are_their_tasks,
    attached,
    bank_of,
    batch_of,
    options,
)
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states
from tests.models import IDS, SMALL, Made

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
}


def gpt_oss() -> Made:
    """Experts in one tensor, interleaved, with biases."""
    config = tf.GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    return tf.GptOssForCausalLM(config), {"input_ids": IDS}


def longcat() -> Made:
    """Some experts that do nothing."""
    sizes = {**SIZES, "num_key_value_heads": 4, "num_layers": 1, "ffn_hidden_size": 48}
    for name in ("intermediate_size", "num_hidden_layers"):
        del sizes[name]
    config = tf.LongcatFlashConfig(
        **sizes,
        n_routed_experts=4,
        zero_expert_num=2,
        moe_topk=2,
        expert_ffn_hidden_size=24,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    )
    return tf.LongcatFlashForCausalLM(config), {"input_ids": IDS}


def llama4() -> Made:
    """Every expert is given every token."""
    config = tf.Llama4TextConfig(
        **SIZES, num_local_experts=4, intermediate_size_mlp=48, interleave_moe_layer_step=1
    )
    return tf.Llama4ForCausalLM(config), {"input_ids": IDS}


def falcon() -> Made:
    """x @ weight.T in place of a linear layer."""
    config = tf.FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=96
    )
    return tf.FalconForCausalLM(config), {"input_ids": IDS}


def bart() -> Made:
    """Positions of one row for all, which beams are more than."""
    config = tf.BartConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=96,
        max_position_embeddings=64,
        forced_eos_token_id=None,
    )
    return tf.BartForConditionalGeneration(config), {
        "input_ids": IDS,
        "decoder_input_ids": IDS[:, :4],
    }


@pytest.mark.filterwarnings("ignore:.*are answered task by task")
@pytest.mark.parametrize(
    "make", [gpt_oss, longcat, llama4, falcon, bart], ids=lambda make: make.__name__
)
def test_families_with_layers_of_their_own(
    make: Callable[[], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(make, tmp_path, options(groups=2, bits=4))
    models, batch = alone(bank), batch_of(make()[1])
    if make is gpt_oss:  # biases as of experts too many for a table
        with monkeypatch.context() as small:
            small.setattr("randes_cli.live.attaching.MOST_TABLE", 0)
            assert_rows_are_their_tasks(attached(bank), models, batch)
    given = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2, "pad_token_id": 0}
    ids = batch["input_ids"]
    for hold in ("dense", "codes"):
        mixed = attached(bank, hold=hold)
        assert_rows_are_their_tasks(mixed, models, batch)
        found = mixed.generate(ids, adapter_names=ASKED, **given)
        for row, task in enumerate(ASKED):
            assert torch.equal(found[row], models[task].generate(ids, **given)[row])


def deberta() -> Made:
    """A table that is normed, projected, and repeated by the batch before its heads."""
    config = tf.DebertaV2Config(
        **SMALL,
        num_labels=3,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        position_buckets=4,
        share_att_key=True,
        position_biased_input=False,
    )
    return tf.DebertaV2ForSequenceClassification(config), {"input_ids": IDS}


def older_deberta() -> Made:
    """Products with what becomes of the table."""
    config = tf.DebertaConfig(
        **SMALL, num_labels=3, relative_attention=True, pos_att_type=["p2c", "c2p"]
    )
    return tf.DebertaForSequenceClassification(config), {"input_ids": IDS}


@pytest.mark.parametrize("make", [deberta, older_deberta], ids=lambda make: make.__name__)
def test_a_table_of_relative_positions_that_is_computed_with(
    make: Callable[[], Made], tmp_path: Path
) -> None:
    bank = bank_of(make, tmp_path, options(groups=2, bits=4))
    assert_rows_answered(bank, batch_of(make()[1]))


class Transposes(torch.nn.Module):
    """What people write with a weight beside `F.linear`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(torch.randn(48, 64))
        self.second = torch.nn.Parameter(torch.randn(64, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.matmul(x @ self.first, self.first.T) / 48
        x = torch.nn.functional.linear(x, self.second) @ self.second.t().mT / 48
        return x @ self.first.transpose(0, 1).T + (self.second.T * 2).sum()


def test_a_weight_that_is_transposed_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Transposes()
    bank = bank_of_states(model, tmp_path, options(groups=2))
    assert_module_answers(model, bank, torch.randn(5, 3, 48))
