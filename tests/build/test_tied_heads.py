"""Heads that are the embeddings in one of base and task alone come back as the task was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from randes_cli import TaskInput, pack, unpack

WIDE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**WIDE, "intermediate_size": 32, "max_position_embeddings": 40}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 40}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
WHISPER = {
    **{"vocab_size": 64, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32},
    **{"decoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 10},
    **{"max_target_positions": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "decoder_start_token_id": 1,
}
MODELS = {
    "BertForMaskedLM": ("BertConfig", BERT),
    "RobertaForMaskedLM": ("RobertaConfig", BERT),
    "GPT2LMHeadModel": ("GPT2Config", GPT),
    "LlamaForCausalLM": ("LlamaConfig", {**WIDE, "intermediate_size": 32}),
    "T5ForConditionalGeneration": ("T5Config", {**T5, "decoder_start_token_id": 0}),
    "WhisperForConditionalGeneration": ("WhisperConfig", WHISPER),
}
IDS = torch.arange(4, 12)[None]


def logits(model: Any) -> torch.Tensor:
    given = {"input_ids": IDS}
    if model.config.model_type == "t5":
        given["decoder_input_ids"] = IDS
    elif model.config.model_type == "whisper":
        given = {"input_features": torch.ones(1, 8, 20) / 3, "decoder_input_ids": IDS}
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**given).logits
    return found


def has_one_head(model: Any) -> bool:
    """Whether embeddings and head are one."""
    pair = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return torch.equal(*pair)


@pytest.mark.parametrize("base_tied", [True, False], ids=["base tied", "task tied"])
@pytest.mark.parametrize("name", MODELS)
def test_a_head_tied_on_one_side_alone_comes_back_as_the_task_was(
    name: str, base_tied: bool, tmp_path: Path
) -> None:
    kind, (config, options) = getattr(transformers, name), MODELS[name]
    make = getattr(transformers, config)
    torch.manual_seed(0)
    base = kind(make(**options, tie_word_embeddings=base_tied))
    task = kind(make(**options, tie_word_embeddings=not base_tied))
    task.load_state_dict(base.state_dict(), strict=False)
    with torch.no_grad():
        for one in task.parameters():
            one.add_(0.05 * torch.randn_like(one))
    task.tie_weights()
    base.save_pretrained(tmp_path / "base")
    task.save_pretrained(tmp_path / "task")
    source = [TaskInput("task", str(tmp_path / "task"))]
    pack(str(tmp_path / "base"), source, tmp_path / "bank.randes")
    unpack(tmp_path / "bank.randes", ["task"], tmp_path / "out")
    wanted, back = (kind.from_pretrained(tmp_path / folder) for folder in ("task", "out"))
    assert back.config.tie_word_embeddings is wanted.config.tie_word_embeddings
    assert has_one_head(back) is has_one_head(wanted)
    assert has_one_head(wanted) is (not base_tied) or name.startswith("T5")  # its config ties all
    effect = (logits(wanted) - logits(base)).abs().max()
    assert (logits(back) - logits(wanted)).abs().max() < 0.05 * effect
