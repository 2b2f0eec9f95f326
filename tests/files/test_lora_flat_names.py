"""LoRAs of sd-scripts and ComfyUI, whose names have underscores for dots or another beginning."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.lora.merged import MergedAdapter
from tests.adapters import merged
from tests.files.test_lora_formats import adapt, assert_same, fused, pipeline


def flat(name: str) -> str:
    return name.replace(".", "_")


def factors(name: str, weight: torch.Tensor, rank: int = 2) -> dict[str, torch.Tensor]:
    """Kohya's three tensors of a module."""
    down = 0.1 * torch.randn(rank, *weight.shape[1:])
    up = 0.1 * torch.randn(len(weight), rank, *[1] * (weight.dim() - 2))
    ends = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(3.0)}
    return {f"{name}.{end}": tensor for end, tensor in ends.items()}


def wanted(weight: torch.Tensor, lora: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    up, down = lora[f"{name}.lora_up.weight"].flatten(1), lora[f"{name}.lora_down.weight"]
    return weight + (lora[f"{name}.alpha"] / len(down) * up @ down.flatten(1)).reshape(weight.shape)


def test_a_kohya_lora_of_a_pipeline_is_merged_as_diffusers_fuses_it(tmp_path: Path) -> None:
    one, two = pipeline(tmp_path / "pipe")
    states = (
        adapt(one, LoraConfig(r=4, target_modules=["to_q", "to_out.0", "proj_in", "conv1"])),
        adapt(two, LoraConfig(r=2, target_modules=["q_proj", "fc1"])),
    )
    lora: dict[str, torch.Tensor] = {}
    for state, head in zip(states, ("lora_unet", "lora_te"), strict=True):
        for name, tensor in state.items():
            module, _, end = name.rpartition(".lora_")
            if head == "lora_te" and "text_model" not in module:
                module = f"text_model.{module}"
            leaf = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[end]
            lora[f"{head}_{flat(module)}.{leaf}"] = tensor.contiguous()
            lora[f"{head}_{flat(module)}.alpha"] = torch.tensor(3.0)
    save_file(lora, tmp_path / "kohya.safetensors")
    ours = merged(tmp_path / "pipe", tmp_path / "kohya.safetensors")

    state, alphas = diffusers.StableDiffusionPipeline.lora_state_dict(
        str(tmp_path / "kohya.safetensors")
    )
    whole = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "pipe/unet")
    whole.load_lora_adapter(state, prefix="unet", network_alphas=alphas)
    assert_same(ours, fused(whole), "unet/")
    before = load_file(tmp_path / "pipe/text_encoder/model.safetensors")
    for name, weight in before.items():
        inner = name.removesuffix(".weight")
        inner = inner if "text_model" in inner else f"text_model.{inner}"
        head = f"lora_te_{flat(inner)}"
        new = wanted(weight, lora, head) if f"{head}.alpha" in lora else weight
        assert np.allclose(ours[f"text_encoder/{name}"], new, atol=1e-6), name


@pytest.mark.parametrize("start", ["", "model.diffusion_model.", "diffusion_model."])
def test_a_comfyui_lora_fits_the_names_of_the_first_release(start: str, tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    save_file({f"{start}blocks.0.attn.qkv.weight": weight}, tmp_path / "base.safetensors")
    module = "diffusion_model.blocks.0.attn.qkv"
    lora = factors(module, weight)
    forms = {"down": "A", "up": "B"}
    for old, new in forms.items():
        lora[f"{module}.lora_{new}.weight"] = lora[f"{module}.lora_{old}.weight"]
    theirs = {name: t for name, t in lora.items() if ".lora_down" not in name and "_up" not in name}
    save_file(theirs, tmp_path / "lora.safetensors")
    ours = merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")
    assert np.allclose(next(iter(ours.values())), wanted(weight, lora, module), atol=1e-6)


@pytest.mark.parametrize(
    ("head", "parts", "meant"),
    [
        ("lora_te1", ("text_encoder", "text_encoder_2", "text_encoder_3"), "text_encoder"),
        ("lora_te2", ("text_encoder", "text_encoder_2", "text_encoder_3"), "text_encoder_2"),
        ("lora_te3", ("text_encoder", "text_encoder_2", "text_encoder_3"), "text_encoder_3"),
        ("lora_te3", ("text_encoder", "text_encoder_2"), "text_encoder_2"),  # FLUX's T5
        ("lora_transformer", ("text_encoder", "transformer"), "transformer"),
    ],
)
def test_a_beginning_means_a_component(
    head: str, parts: tuple[str, ...], meant: str, tmp_path: Path
) -> None:
    weight = torch.randn(4, 4)
    for part in parts:
        (tmp_path / "pipe" / part).mkdir(parents=True)
        save_file({"block.0.q.weight": weight}, tmp_path / "pipe" / part / "x.safetensors")
    (tmp_path / "pipe/model_index.json").write_text(
        json.dumps({part: ["a", "B"] for part in parts})
    )
    lora = factors(f"{head}_block_0_q", weight)
    save_file(lora, tmp_path / "lora.safetensors")
    ours = merged(tmp_path / "pipe", tmp_path / "lora.safetensors")
    for part in parts:
        new = wanted(weight, lora, f"{head}_block_0_q") if part == meant else weight
        assert np.allclose(ours[f"{part}/block.0.q.weight"], new, atol=1e-6), part


def test_lengths_of_kohya_are_those_of_dora(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    save_file({"unet_block.0.q.weight": weight}, tmp_path / "base.safetensors")
    name = "lora_unet_unet_block_0_q"
    lora = factors(name, weight)
    lengths = torch.rand(6, 1) + 0.5
    save_file({**lora, f"{name}.dora_scale": lengths}, tmp_path / "lora.safetensors")
    ours = merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")
    new = wanted(weight, lora, name)
    assert np.allclose(
        next(iter(ours.values())), new * lengths / new.norm(dim=1, keepdim=True), atol=1e-5
    )
    save_file({**lora, f"{name}.dora_scale": lengths.T[:, :4]}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match="lengths of inputs"):
        merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        (
            "lora_unet_other.lora_up.weight",
            MismatchError,
            "'lora_unet_other.* which the base .* lacks",
        ),
        ("lora_te2_c_q.lora_up.weight", MismatchError, "which the base .* lacks"),
        ("lora_unet_b_q.hada_w1_a", CheckpointError, "b.q lacks a factor"),
        ("lora_unet_b_q.oft_blocks", CheckpointError, "LyCORIS"),
        ("lora_unet_b_q.set_weight", CheckpointError, "whole differences"),
        ("lora_unet_b_q.on_input", CheckpointError, "is no factor of a LoRA"),
        ("lora_unet_b_q.diff", CheckpointError, r"do not fit one another \(A .*weight"),
        ("lora_unet_b_q.diff_b", MismatchError, "adapts a bias that the base lacks"),
        ("b.q.scale", CheckpointError, "is no factor of a LoRA"),
    ],
)
def test_what_is_more_than_factors_is_named(
    name: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    lora = factors("lora_unet_b_q", torch.ones(2, 2))
    save_file({**lora, name: torch.ones(2, 2)}, tmp_path / "a.safetensors")
    save_file({"b.q.weight": torch.ones(2, 2)}, tmp_path / "base.safetensors")
    adapter = open_checkpoint(str(tmp_path / "a.safetensors"))
    with pytest.raises(error, match=said):
        MergedAdapter(open_checkpoint(str(tmp_path / "base.safetensors")), adapter)


def test_a_base_that_lacks_one_of_several_modules_is_said(tmp_path: Path) -> None:
    """Also where its bias is there."""
    there = {f"transformer_blocks.0.attn.to_{x}.weight": torch.ones(2, 2) for x in "qk"}
    save_file({**there, "transformer_blocks.0.attn.to_v.bias": torch.ones(2)}, tmp_path / "base.st")
    lora = factors("lora_unet_double_blocks_0_img_attn_qkv", torch.ones(6, 2))
    save_file(lora, tmp_path / "a.safetensors")
    adapter = open_checkpoint(str(tmp_path / "a.safetensors"))
    with pytest.raises(MismatchError, match=r"which the base .* lacks"):
        MergedAdapter(open_checkpoint(str(tmp_path / "base.st")), adapter)
