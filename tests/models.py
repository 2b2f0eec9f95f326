"""Small models of the libraries that people fine-tune with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf

IDS = torch.arange(1, 9).reshape(1, 8)
PIXELS = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {**GROUPED, "num_experts_per_tok": 2, "pad_token_id": 0}

Made = tuple[torch.nn.Module, dict[str, torch.Tensor]]


def bert() -> Made:
    config = tf.BertConfig(**SMALL, num_labels=3)
    return tf.BertForSequenceClassification(config), {"input_ids": IDS}


def roberta() -> Made:
    return tf.RobertaForMaskedLM(tf.RobertaConfig(**SMALL)), {"input_ids": IDS}


def gpt2() -> Made:
    config = tf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return tf.GPT2LMHeadModel(config), {"input_ids": IDS}


def t5() -> Made:
    config = tf.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    model = tf.T5ForConditionalGeneration(config)
    return model, {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}


def clip() -> Made:
    text = {**SMALL, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
    vision = {k: v for k, v in SMALL.items() if k != "vocab_size"}
    config = tf.CLIPConfig(
        text_config=text,
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    return tf.CLIPModel(config), {"input_ids": IDS, "pixel_values": PIXELS}


def vit() -> Made:
    size = {k: v for k, v in SMALL.items() if k != "vocab_size"}
    config = tf.ViTConfig(**size, image_size=32, patch_size=8, num_labels=5)
    return tf.ViTForImageClassification(config), {"pixel_values": PIXELS}


def llama() -> Made:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED)), {"input_ids": IDS}


def qwen3() -> Made:
    config = tf.Qwen3Config(**GROUPED, tie_word_embeddings=True)
    return tf.Qwen3ForCausalLM(config), {"input_ids": IDS}


def qwen3_moe() -> Made:
    config = tf.Qwen3MoeConfig(**EXPERTS, num_experts=4, moe_intermediate_size=24)
    return tf.Qwen3MoeForCausalLM(config), {"input_ids": IDS}


def mixtral() -> Made:
    config = tf.MixtralConfig(**EXPERTS, num_local_experts=4)
    return tf.MixtralForCausalLM(config), {"input_ids": IDS}


def gemma3() -> Made:
    return tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**GROUPED)), {"input_ids": IDS}


def whisper() -> Made:
    config = tf.WhisperConfig(
        vocab_size=96,
        d_model=32,
        num_mel_bins=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_source_positions=16,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    sound = torch.linspace(-1, 1, 16 * 32).reshape(1, 16, 32)
    inputs = {"input_features": sound, "decoder_input_ids": IDS[:, :4]}
    return tf.WhisperForConditionalGeneration(config), inputs


def mamba() -> Made:
    config = tf.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=8)
    return tf.MambaForCausalLM(config), {"input_ids": IDS}


MODELS: list[Callable[[], Made]] = [
    bert,
    roberta,
    gpt2,
    t5,
    clip,
    vit,
    llama,
    qwen3,
    qwen3_moe,
    mixtral,
    gemma3,
    whisper,
    mamba,
]


def unet(words: int = 8) -> Any:
    """A diffusers U-Net that listens to words of this width."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=words,
        norm_num_groups=4,
        attention_head_dim=4,
    )


def plain_unet() -> Any:
    """One that takes pictures alone, as `DDPMPipeline` has."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )


def perturb(model: torch.nn.Module, seed: int) -> None:
    """What a fine-tune does: every weight moves a little, by a share of its tensor's scale."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            scale = 0.05 * weight.float().std(correction=0) + 1e-3
            weight.add_(torch.randn_like(weight) * scale)


@torch.no_grad()
def answer(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits, in float32 arithmetic whatever the weights' dtype."""
    model = model.float().eval()
    found = model(**inputs)
    logits = found.logits_per_image if "logits_per_image" in found else found.logits
    assert isinstance(logits, torch.Tensor)
    return logits


def save(model: Any, folder: Path, dtype: torch.dtype, *, sharded: bool) -> None:
    model.to(dtype).save_pretrained(folder, max_shard_size="20KB" if sharded else "5GB")
