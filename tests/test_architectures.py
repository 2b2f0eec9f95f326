"""Every architecture that people fine-tune goes in as its library saves it, and out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

from randes_cli.build.pack import pack
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import RunOptions, TaskInput

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


def load(kind: type[Any], folder: Path) -> torch.nn.Module:
    """Load with the task's own class; every key of the file and of the model finds the other."""
    model, found = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(found.values()), found
    assert isinstance(model, torch.nn.Module)
    return model


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_a_saved_model_comes_back_as_a_folder_that_its_class_loads(
    make: Callable[[], Made], dtype: torch.dtype, sharded: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, inputs = make()
    save(model, tmp_path / "base", dtype, sharded=sharded)
    before = answer(model, inputs)
    for number in range(3):
        perturb(model, number)
        save(model, tmp_path / f"task{number}", dtype, sharded=sharded)
        if number == 0:
            after = answer(model, inputs)

    tasks = [TaskInput(f"task{number}", str(tmp_path / f"task{number}")) for number in range(3)]
    pack(str(tmp_path / "base"), tasks, tmp_path / "three.randes")
    shards = UnpackOptions(shard_bytes=20_000 if sharded else None)
    unpack(tmp_path / "three.randes", None, tmp_path / "out", shards, RunOptions())
    for task in tasks:
        load(type(model), tmp_path / "out" / task.name)
        assert (tmp_path / "out" / task.name / "model.safetensors").exists() is not sharded

    pack(str(tmp_path / "base"), tasks[:1], tmp_path / "one.randes")
    unpack(tmp_path / "one.randes", ["task0"], tmp_path / "alone", shards, RunOptions())
    back = answer(load(type(model), tmp_path / "alone"), inputs)
    effect = (after - before).abs().max()
    assert effect > 0
    assert (back - after).abs().max() <= 0.03 * effect


def test_a_diffusers_unet_comes_back_as_a_folder_that_its_class_loads(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    picture, words = torch.ones(1, 4, 8, 8), torch.ones(1, 3, 8)
    model.save_pretrained(tmp_path / "base")
    perturb(model, 1)
    model.save_pretrained(tmp_path / "style", variant="fp16")

    pack(
        str(tmp_path / "base"),
        [TaskInput("style", str(tmp_path / "style"))],
        tmp_path / "bank.randes",
    )
    unpack(tmp_path / "bank.randes", ["style"], tmp_path / "out", UnpackOptions(), RunOptions())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
    ]
    with torch.no_grad():
        wanted = model(picture, 3, words).sample
        back, found = UNet2DConditionModel.from_pretrained(
            tmp_path / "out", output_loading_info=True, variant="fp16"
        )
        assert not any(found.values()), found
        assert torch.allclose(back(picture, 3, words).sample, wanted, atol=2e-3)


def test_a_bare_timm_file_with_another_head_comes_back_as_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    def weights(classes: int, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        made = {
            "cls_token": torch.randn(1, 1, 32),
            "pos_embed": torch.randn(1, 17, 32),
            "patch_embed.proj.weight": torch.randn(32, 3, 8, 8),
            "patch_embed.proj.bias": torch.randn(32),
        }
        for layer in range(2):
            made[f"blocks.{layer}.norm1.weight"] = torch.ones(32)
            made[f"blocks.{layer}.attn.qkv.weight"] = torch.randn(96, 32)
            made[f"blocks.{layer}.attn.proj.weight"] = torch.randn(32, 32)
            made[f"blocks.{layer}.mlp.fc1.weight"] = torch.randn(128, 32)
        head = {"head.weight": torch.randn(classes, 32), "head.bias": torch.randn(classes)}
        return {**made, **head}

    base, task = weights(1000, 0), weights(7, 1)
    for name in task:
        if not name.startswith("head"):
            task[name] = base[name] + 0.01 * task[name]
    save_file(base, tmp_path / "vit.safetensors")
    save_file(task, tmp_path / "flowers.safetensors")
    report = pack(
        str(tmp_path / "vit.safetensors"),
        [TaskInput("flowers", str(tmp_path / "flowers.safetensors"))],
        tmp_path / "bank.randes",
    )
    assert sorted(report.kept_exactly["flowers"]) == ["head.bias", "head.weight"]
    unpack(tmp_path / "bank.randes", None, tmp_path / "out", UnpackOptions(), RunOptions())
    back = load_file(tmp_path / "out" / "flowers.safetensors")
    assert set(back) == set(task)
    for name, tensor in task.items():
        if name.startswith("head"):
            assert torch.equal(back[name], tensor)
        else:
            assert torch.allclose(back[name], tensor, atol=0.01 / 32)


def test_a_diffusers_pipeline_comes_back_as_a_pipeline_that_runs(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    pipeline = DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=4))
    pipeline.save_pretrained(tmp_path / "base")
    perturb(unet, 1)
    pipeline.save_pretrained(tmp_path / "style")

    style = TaskInput("style", str(tmp_path / "style"))
    pack(str(tmp_path / "base"), [style], tmp_path / "bank.randes")
    unpack(tmp_path / "bank.randes", ["style"], tmp_path / "out", UnpackOptions(), RunOptions())
    back = DDPMPipeline.from_pretrained(tmp_path / "out")
    made = [
        one(generator=torch.manual_seed(0), num_inference_steps=2, output_type="np").images
        for one in (pipeline, back)
    ]
    assert abs(made[0] - made[1]).max() < 5e-3
