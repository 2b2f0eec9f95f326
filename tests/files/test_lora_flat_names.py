"""LoRAs of sd-scripts and ComfyUI, whose names have underscores for dots or another beginning."""

from __future__ import annotations

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
from randes_cli.files.lora.released_names import in_diffusers
from tests.adapters import merged
from tests.files.test_lora_formats import adapt, assert_same, fused, pipeline

#: Modules of Stable Diffusion XL's UNet in its first release, and what diffusers calls them.
RELEASED = {
    "input_blocks.0.0": "conv_in",
    "input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1",
    "input_blocks.2.0.emb_layers.1": "down_blocks.0.resnets.1.time_emb_proj",
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.4.0.skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "input_blocks.4.1.proj_in": "down_blocks.1.attentions.0.proj_in",
    "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj": (
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"
    ),
    "middle_block.0.out_layers.3": "mid_block.resnets.0.conv2",
    "middle_block.1.transformer_blocks.3.attn2.to_out.0": (
        "mid_block.attentions.0.transformer_blocks.3.attn2.to_out.0"
    ),
    "middle_block.2.in_layers.2": "mid_block.resnets.1.conv1",
    "output_blocks.2.1.transformer_blocks.0.attn1.to_k": (
        "up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_k"
    ),
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.8.0.out_layers.3": "up_blocks.2.resnets.2.conv2",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "out.2": "conv_out",
}


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


@pytest.mark.parametrize(("released", "theirs"), RELEASED.items())
def test_modules_of_the_first_release_have_their_names_in_diffusers(
    released: str, theirs: str
) -> None:
    assert in_diffusers(flat(released), 2) == (flat(theirs),)
    assert in_diffusers(flat(theirs), 2) == (flat(theirs),)


@pytest.mark.parametrize("one_file", [False, True], ids=["component", "one file"])
@pytest.mark.parametrize("released", [False, True], ids=["diffusers' names", "first release's"])
def test_an_update_in_either_set_of_names_meets_a_base_in_either(
    one_file: bool, released: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    names = {**RELEASED, "input_blocks.2.0.in_layers.2": "down_blocks.0.resnets.1.conv1"}
    shape = {name: (4, 3, 3, 3) if "conv" in new else (4, 3) for name, new in names.items()}
    weights = {name: torch.randn(shape[name]) for name in names}
    called = (lambda name: f"model.diffusion_model.{name}") if one_file else names.__getitem__
    base = {f"{called(name)}.weight": weight for name, weight in weights.items()}
    file = tmp_path / ("base.safetensors" if one_file else "base/unet/x.safetensors")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(base, file)
    if not one_file:
        (tmp_path / "base/model_index.json").write_text('{"unet": ["diffusers", "X"]}')
    heads = {name: f"lora_unet_{flat(name if released else names[name])}" for name in names}
    lora: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        lora |= factors(heads[name], weight)
    save_file(lora, tmp_path / "lora.safetensors")
    ours = merged(file if one_file else tmp_path / "base", tmp_path / "lora.safetensors")
    for name, weight in weights.items():
        own = ours[("" if one_file else "unet/") + f"{called(name)}.weight"]
        assert np.allclose(own, wanted(weight, lora, heads[name]), atol=1e-6), name


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


#: Modules of a small FLUX as in its first release; `linear1` is what diffusers has four of.
FLUX = {
    f"double_blocks.{i}.{which}_{module}": size
    for i in range(2)
    for which in ("img", "txt")
    for module, size in {
        "attn.qkv": (48, 16),
        "attn.proj": (16, 16),
        "mlp.0": (64, 16),
        "mlp.2": (16, 64),
        "mod.lin": (96, 16),
    }.items()
}
FLUX |= {"single_blocks.0.linear2": (16, 80), "single_blocks.0.modulation.lin": (48, 16)}
LINEAR1 = {"single_blocks.0.linear1": (112, 16)}


def test_a_kohya_lora_of_flux_is_merged_as_diffusers_fuses_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    model.save_pretrained(tmp_path / "base")
    lora: dict[str, torch.Tensor] = {}
    for module, size in FLUX.items():
        lora |= factors(f"lora_unet_{flat(module)}", torch.zeros(size))
    save_file(lora, tmp_path / "lora.safetensors")
    ours = merged(tmp_path / "base", tmp_path / "lora.safetensors")
    state = diffusers.FluxPipeline.lora_state_dict(str(tmp_path / "lora.safetensors"))
    model.load_lora_adapter(state, prefix="transformer")
    assert_same(ours, fused(model))


@pytest.mark.parametrize("names", ["lora_unet_{}", "diffusion_model.{}"])
def test_a_lora_of_flux_fits_its_first_release_and_its_parts_in_diffusers(
    names: str, tmp_path: Path
) -> None:
    flux = {**FLUX, **LINEAR1}
    base = {f"{module}.weight": torch.randn(size) for module, size in flux.items()}
    heads = {m: names.format(flat(m) if "unet" in names else m) for m in flux}
    lora: dict[str, torch.Tensor] = {}
    for module, head in heads.items():
        lora |= factors(head, base[f"{module}.weight"])
    save_file(lora, tmp_path / "lora.safetensors")
    save_file(base, tmp_path / "base.safetensors")
    ours = merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")
    for module, head in heads.items():
        weight = base[f"{module}.weight"]
        assert np.allclose(ours[f"{module}.weight"], wanted(weight, lora, head), atol=1e-6)

    whole = base["single_blocks.0.linear1.weight"]
    parts = {"attn.to_q": 16, "attn.to_k": 16, "attn.to_v": 16, "proj_mlp": 64}
    start, new = "single_transformer_blocks.0", wanted(whole, lora, heads[next(iter(LINEAR1))])
    cut = [f"{start}.{part}.weight" for part in parts]
    pieces = zip(cut, torch.split(whole, list(parts.values())), strict=True)
    save_file({name: piece.contiguous() for name, piece in pieces}, tmp_path / "cut.safetensors")
    of_linear1 = {name: t for name, t in lora.items() if "linear1" in name}
    save_file(of_linear1, tmp_path / "one.safetensors")
    ours = merged(tmp_path / "cut.safetensors", tmp_path / "one.safetensors")
    assert np.allclose(np.concatenate([ours[name] for name in cut]), new, atol=1e-6)


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
        ("lora_unet_b_q.hada_w1_a", CheckpointError, "LyCORIS"),
        ("lora_unet_b_q.lora_mid.weight", CheckpointError, "LoCon of three factors"),
        ("lora_unet_b_q.on_input", CheckpointError, "is no factor of a LoRA"),
        ("diffusion_model.b.q.diff", CheckpointError, "whole differences"),
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
