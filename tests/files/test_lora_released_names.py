"""LoRAs in the names of models' first releases, which meet a base in those or in diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file

from randes_cli.files.lora.released_names import in_diffusers
from tests.adapters import merged
from tests.files.test_lora_flat_names import factors, flat, wanted
from tests.files.test_lora_formats import assert_same, fused

pytestmark = pytest.mark.filterwarnings("ignore:While injecting", "ignore:The following")

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
    "joint_blocks.3.x_block.attn2.proj": "transformer_blocks.3.attn2.to_out.0",
    "joint_blocks.3.x_block.mlp.fc1": "transformer_blocks.3.ff.net.0.proj",
    "joint_blocks.3.context_block.attn.proj": "transformer_blocks.3.attn.to_add_out",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "out.2": "conv_out",
}


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


def wan() -> dict[str, torch.Tensor]:
    """A small Wan as in its first release."""
    base = {f"blocks.1.{kind}_attn.{x}": (16, 16) for kind in ("self", "cross") for x in "qkvo"}
    base |= {f"blocks.1.cross_attn.{x}_img": (16, 16) for x in "kv"}
    return {name: torch.randn(s) for name, s in {**base, "blocks.1.ffn.0": (24, 16)}.items()}


def hunyuan() -> dict[str, torch.Tensor]:
    inner = {"attn_qkv": (48, 16), "attn_proj": (16, 16), "mlp.fc1": (24, 16), "mlp.fc2": (16, 24)}
    inner["mod.linear"] = (96, 16)
    blocks = {f"double_blocks.0.{w}_{m}": s for w in ("img", "txt") for m, s in inner.items()}
    return {name: torch.randn(size) for name, size in blocks.items()}


@pytest.mark.parametrize("start", ["lora_unet_", "diffusion_model."])
@pytest.mark.parametrize(
    ("make", "convert"),
    [
        (wan, single_file_utils.convert_wan_transformer_to_diffusers),
        (hunyuan, single_file_utils.convert_hunyuan_video_transformer_to_diffusers),
    ],
)
def test_merged_and_converted_is_converted_and_merged(
    make: Callable[[], Any], convert: Callable[[Any], Any], start: str, tmp_path: Path
) -> None:
    weights = make()
    lora: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        lora |= factors(start + (flat(name) if "unet" in start else name), weight)
    save_file(lora, tmp_path / "lora.safetensors")
    base = {f"{name}.weight": weight for name, weight in weights.items()}
    save_file(base, tmp_path / "first.safetensors")
    first = merged(tmp_path / "first.safetensors", tmp_path / "lora.safetensors")
    changed = [name for name, weight in base.items() if not np.array_equal(first[name], weight)]
    assert changed == list(base)
    converted = {name: tensor.contiguous() for name, tensor in convert(dict(base)).items()}
    save_file(converted, tmp_path / "diffusers.safetensors")
    ours = merged(tmp_path / "diffusers.safetensors", tmp_path / "lora.safetensors")
    assert_same(ours, convert({name: torch.from_numpy(array) for name, array in first.items()}))


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
