"""Random adapters, merged by randes and by PEFT: the same logits, or a refusal by name.

A bank of one task gives its delta back but for the rounding to steps, so what unpack writes is
compared with what PEFT merges, saves and loads, beside the adapter's own effect.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model

from randes_cli.build.pack import pack
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import RunOptions, TaskInput

IDS = torch.arange(1, 9).reshape(1, 8)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}


def llama(tie: bool) -> Any:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED, tie_word_embeddings=tie))


def gpt2(tie: bool) -> Any:
    config = tf.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32, tie_word_embeddings=tie
    )
    return tf.GPT2LMHeadModel(config)


def bert(tie: bool) -> Any:
    return tf.BertForMaskedLM(tf.BertConfig(**SIZES, tie_word_embeddings=tie))


#: Models with what may be adapted, their embedding and their head.
MODELS = {
    "llama": (llama, ["q_proj", "v_proj", "down_proj", "o_proj"], "embed_tokens", "lm_head"),
    "gpt2": (gpt2, ["c_attn", "c_proj", "c_fc"], "wte", "lm_head"),
    "bert": (bert, ["query", "value", "output.dense"], "word_embeddings", "decoder"),
}


def draw(rng: random.Random) -> tuple[str, bool, dict[str, Any]]:
    """A model, whether its embeddings are tied, and the options of an adapter."""
    kind = rng.choice(list(MODELS))
    _, modules, embedding, head = MODELS[kind]
    targets = rng.sample(modules, rng.randint(1, len(modules)))
    options: dict[str, Any] = {
        "r": rng.choice([1, 3, 4, 8]),
        "lora_alpha": rng.choice([1, 4, 16]),
        "use_rslora": rng.random() < 0.3,
        "target_modules": targets + [name for name in (embedding, head) if rng.random() < 0.2],
        "bias": rng.choice(["none", "none", "all", "lora_only"]),
        "fan_in_fan_out": kind == "gpt2",
    }
    saved = [
        name
        for name in (embedding, head)
        if name not in options["target_modules"] and rng.random() < 0.3
    ]
    if saved:
        options["modules_to_save"] = saved
        options["ensure_weight_tying"] = rng.random() < 0.3
    if rng.random() < 0.4:
        options["rank_pattern"] = {rng.choice(targets): rng.choice([2, 5])}
    if rng.random() < 0.4:
        options["alpha_pattern"] = {f"0.*{rng.choice(targets)}": 7}
    options["use_dora"] = rng.random() < 0.3
    free = embedding not in (*options["target_modules"], *saved)
    if free and head not in (*options["target_modules"], *saved) and rng.random() < 0.4:
        options["trainable_token_indices"] = {embedding: rng.sample(range(1, 9), 3)}
    return kind, rng.random() < 0.6, options


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found = model.eval()(input_ids=IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


def trained(wrapped: Any) -> Any:
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.08 * torch.randn_like(weight))
    return wrapped


@pytest.mark.parametrize("seed", range(30))
def test_a_random_adapter_is_merged_as_peft_merges_it_or_refused(seed: int, tmp_path: Path) -> None:
    kind, tie, options = draw(random.Random(seed))
    torch.manual_seed(seed)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model = MODELS[kind][0](tie)
    model.save_pretrained(base)
    load = type(model).from_pretrained
    plain = logits(load(base))
    trained(get_peft_model(model, LoraConfig(**options))).save_pretrained(adapter)
    live = logits(PeftModel.from_pretrained(load(base), adapter))
    PeftModel.from_pretrained(load(base), adapter).merge_and_unload().save_pretrained(
        tmp_path / "theirs"
    )
    theirs = logits(load(tmp_path / "theirs"))
    effect = float((live - plain).abs().max())
    right = float((theirs - live).abs().max()) < 0.01 * effect
    bank = tmp_path / "bank.randes"
    try:
        pack(str(base), [TaskInput("a", str(adapter))], bank)
    except (CheckpointError, MismatchError) as error:
        assert not right, (options, error)
        assert "ties to another name" in str(error)
        return
    unpack(bank, ["a"], tmp_path / "ours", UnpackOptions(), RunOptions())
    back, found = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found[f"{what}_keys"] for what in ("missing", "mismatched", "unexpected")), found
    assert float((logits(back) - live).abs().max()) < 0.05 * effect, (kind, tie, options)
    assert right or tie, options


@pytest.mark.parametrize("saved", ["lm_head", "wte", "ln_f"])
def test_what_a_saved_module_replaces_is_no_tensor_of_the_model(saved: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model = gpt2(False)
    model.save_pretrained(base)
    options = {"bias": "all", "target_modules": ["c_attn", "lm_head"], "modules_to_save": [saved]}
    trained(get_peft_model(model, LoraConfig(**options))).save_pretrained(adapter)
    live = PeftModel.from_pretrained(tf.GPT2LMHeadModel.from_pretrained(base), adapter)
    pack(str(base), [TaskInput("a", str(adapter))], tmp_path / "bank.randes")
    unpack(tmp_path / "bank.randes", ["a"], tmp_path / "ours", UnpackOptions(), RunOptions())
    back, found = tf.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(found[f"{what}_keys"] for what in ("missing", "mismatched", "unexpected")), found
    assert torch.allclose(logits(back), logits(live), atol=0.02)
