"""LoHa and LoKr: merged as PEFT merges them, and as files of LyCORIS mean them; or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from peft import LoHaConfig, LoKrConfig, get_peft_model
from safetensors.torch import save_file

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.lora.unmerged import is_adapter, require_alike
from randes_cli.files.source import ZeroBase
from tests.adapters import llama, merged
from tests.files.test_dora import read, resnet, saved


def speech() -> Any:
    """A model with convolutions along one side."""
    config = tf.Wav2Vec2Config(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(16, 16),
        conv_kernel=(1, 3),
        conv_stride=(1, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return tf.Wav2Vec2Model(config)


CONVOLUTIONS = r".*conv_layers\.1\.conv"
PATTERNS = {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"1.self_attn.q_proj": 5}}
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "LoHa": (llama, LoHaConfig, {"target_modules": ["q_proj", "down_proj"], **PATTERNS}),
    "LoHa, saved modules": (
        llama,
        LoHaConfig,
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    ),
    "LoHa of convolutions": (resnet, LoHaConfig, {"target_modules": ["convolution"]}),
    "LoHa with a core": (
        resnet,
        LoHaConfig,
        {"target_modules": ["convolution"], "use_effective_conv2d": True},
    ),
    "LoHa with a core along one side": (
        speech,
        LoHaConfig,
        {"target_modules": CONVOLUTIONS, "use_effective_conv2d": True, "rank_dropout": 0.5},
    ),
    "LoKr": (llama, LoKrConfig, {"target_modules": ["q_proj", "down_proj"], **PATTERNS}),
    "LoKr of four factors": (
        llama,
        LoKrConfig,
        {"target_modules": ["q_proj", "gate_proj"], "decompose_both": True, "r": 1},
    ),
    "LoKr by a factor": (
        llama,
        LoKrConfig,
        {"target_modules": ["q_proj", "k_proj"], "decompose_factor": 2, "r": 3},
    ),
    "LoKr of whole matrices": (llama, LoKrConfig, {"target_modules": ["q_proj"], "r": 32}),
    "LoKr of convolutions": (resnet, LoKrConfig, {"target_modules": ["convolution"], "r": 1}),
    "LoKr of whole convolutions": (resnet, LoKrConfig, {"target_modules": ["convolution"]}),
    "LoKr with a core": (
        resnet,
        LoKrConfig,
        {"target_modules": ["convolution"], "use_effective_conv2d": True, "r": 1},
    ),
    "LoKr along one side": (speech, LoKrConfig, {"target_modules": CONVOLUTIONS, "r": 1}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_loha_and_lokr_are_merged_as_peft_merges_them_whatever_the_pieces(
    case: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    make, kind, options = CASES[case]
    theirs = saved(tmp_path, make(), kind(**{"r": 4, "alpha": 6, **options}))
    ours, again = read(tmp_path), read(tmp_path, 7)
    for name, value in ours.items():
        assert np.array_equal(value, again[name])
        wanted = theirs[name].numpy()
        assert np.abs(value - wanted).max(initial=0) <= 1e-6 * max(1, np.abs(wanted).max()), name


def test_a_lokr_of_whole_convolutions_along_one_side_is_refused(tmp_path: Path) -> None:
    """PEFT orders its elements otherwise than of all others."""
    model = speech()
    model.save_pretrained(tmp_path / "base")
    config = LoKrConfig(r=8, target_modules=CONVOLUTIONS)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="orders otherwise; merge it with PEFT"):
        read(tmp_path)


Parts = dict[str, tuple[int, ...]]
#: Parts of a module of 6 outputs, 8 inputs and a kernel of 3 × 3 (or none), of rank 2.
LOHA: Parts = {f"hada_w{n}_{x}": size for n in "12" for x, size in (("a", (6, 2)), ("b", (2, 8)))}
CORES: Parts = {
    **{f"hada_w{n}_{x}": size for n in "12" for x, size in (("a", (2, 6)), ("b", (2, 8)))},
    **{f"hada_t{n}": (2, 2, 3, 3) for n in "12"},
}
LOKR: Parts = {"lokr_w1": (3, 2), "lokr_w2_a": (2, 2), "lokr_w2_b": (2, 4)}
WHOLE: Parts = {"lokr_w1": (3, 2), "lokr_w2": (2, 4)}
TUCKER: Parts = {
    **{"lokr_w1_a": (3, 2), "lokr_w1_b": (2, 2)},
    **{"lokr_w2_a": (2, 2), "lokr_w2_b": (2, 4), "lokr_t2": (2, 2, 3, 3)},
}
LORA: Parts = {"lora_up.weight": (6, 2), "lora_down.weight": (2, 8)}
LOCON: Parts = {
    "lora_up.weight": (6, 2, 1, 1),
    "lora_mid.weight": (2, 2, 3, 3),
    "lora_down.weight": (2, 8, 1, 1),
}


def drawn(module: str, parts: Parts, *, alpha: float | None = 3.0) -> dict[str, torch.Tensor]:
    made = {f"{module}.{part}": torch.randn(size) for part, size in parts.items()}
    return made | ({f"{module}.alpha": torch.tensor(alpha)} if alpha is not None else {})


def with_core(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij...,ip,jr->pr...", core, left, right)


def delta(lora: dict[str, torch.Tensor], module: str) -> torch.Tensor:
    """What the module of LyCORIS adds to a weight when it answers."""
    start = f"{module}."
    own = {name.removeprefix(start): t for name, t in lora.items() if name.startswith(start)}
    scale = 1.0 if own.keys() & {"lokr_w2", "diff"} else own["alpha"] / 2

    def pair(what: str) -> torch.Tensor:
        return own[f"{what}_a"] @ own[f"{what}_b"]

    if "diff" in own:
        return own["diff"]
    if "lora_up.weight" in own:
        up, down = own["lora_up.weight"].flatten(1), own["lora_down.weight"].flatten(1)
        mid = own.get("lora_mid.weight")
        return scale * (up @ down if mid is None else with_core(mid, up.T, down))
    if "hada_t1" in own:
        names = [(f"hada_t{n}", f"hada_w{n}_a", f"hada_w{n}_b") for n in "12"]
        one, two = (with_core(*(own[name] for name in three)) for three in names)
        return scale * one * two
    if "hada_w1_a" in own:
        return scale * pair("hada_w1") * pair("hada_w2")
    first = own["lokr_w1"] if "lokr_w1" in own else pair("lokr_w1")
    if "lokr_t2" in own:
        second = with_core(own["lokr_t2"], own["lokr_w2_a"], own["lokr_w2_b"])
        return scale * torch.kron(first[:, :, None, None], second.contiguous())
    return scale * torch.kron(first, own["lokr_w2"] if "lokr_w2" in own else pair("lokr_w2"))


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(
    ("start", "module"),
    [
        ("lora_unet_", "lora_unet_b_0_q"),
        ("lycoris_", "lycoris_b_0_q"),
        ("diffusion_model.", "diffusion_model.b.0.q"),
    ],
)
@pytest.mark.parametrize("parts", [LORA, LOHA, CORES, LOKR, WHOLE, TUCKER, LOCON, {"diff": (6, 8)}])
def test_files_of_lycoris_are_merged_as_it_answers_by_them(
    parts: Parts, start: str, module: str, lengths: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    lora = drawn(module, parts)
    added = delta(lora, module)
    weight, bias = torch.randn(added.shape), torch.randn(6)
    base = {"b.0.q.weight": weight}
    base |= {name: bias.clone() for name in ("b.0.q.bias", "norm.weight", "norm.bias")}
    save_file(base, tmp_path / "base.safetensors")
    lora |= {f"{module}.diff_b": torch.randn(6), f"{start}norm.w_norm": torch.randn(6)}
    wanted = weight + added
    if lengths:
        size = (6, *[1] * (weight.dim() - 1))
        lora[f"{module}.dora_scale"] = torch.rand(size) + 0.5
        wanted = wanted * lora[f"{module}.dora_scale"] / wanted.flatten(1).norm(dim=1).reshape(size)
    save_file(lora, tmp_path / "lora.safetensors")
    ours = merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")
    assert np.allclose(ours["b.0.q.weight"], wanted, atol=2e-6)
    assert np.array_equal(ours["b.0.q.bias"], bias + lora[f"{module}.diff_b"])
    assert np.array_equal(ours["norm.weight"], bias + lora[f"{start}norm.w_norm"])
    assert np.array_equal(ours["norm.bias"], bias)


@pytest.mark.parametrize("parts", [LOHA, LOKR])
def test_a_module_that_is_several_in_the_base_has_its_rows_in_each(
    parts: Parts, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    weights = {x: torch.randn(rows, 8) for x, rows in (("q", 1), ("k", 3), ("v", 2))}
    start = "transformer_blocks.0.attn.to_"
    base = {f"{start}{x}.weight": weight for x, weight in weights.items()}
    save_file(base, tmp_path / "base.safetensors")
    module = "lora_unet_double_blocks_0_img_attn_qkv"
    lora = drawn(module, parts)
    save_file(lora, tmp_path / "lora.safetensors")
    ours = merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")
    wanted = torch.cat([*weights.values()]) + delta(lora, module)
    found = np.concatenate([ours[f"{start}{x}.weight"] for x in weights])
    assert np.allclose(found, wanted, atol=2e-6)
    save_file({**base, f"{start}q.weight": torch.ones(2, 8)}, tmp_path / "base.safetensors")
    with pytest.raises(MismatchError, match=r"adapts a weight of \[6, 8\]"):
        merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")


@pytest.mark.parametrize(
    ("parts", "alpha", "error", "said"),
    [
        (LOHA, None, CheckpointError, "has no alpha"),
        ({**LOHA, "hada_w2_a": (6, 3)}, 1.0, CheckpointError, "do not fit one another"),
        ({**LOHA, "hada_w2_a": (6, 3), "hada_w2_b": (3, 8)}, 1.0, CheckpointError, "rank 2 and 3"),
        ({**LOHA, "hada_w2_a": (5, 2)}, 1.0, MismatchError, r"adapts a weight of \[6, 8\]"),
        ({**LOKR, "lokr_w1": (3, 3)}, 1.0, MismatchError, r"adapts a weight of \[6, 12\]"),
        ({**WHOLE, "lokr_w2_a": (2, 2)}, 1.0, CheckpointError, "do not fit one another"),
        ({**LOKR, "lokr_t2": (3, 2)}, 1.0, CheckpointError, "do not fit one another"),
        ({**LOKR, "lokr_t1": (2, 2)}, 1.0, CheckpointError, "is no factor of a LoRA"),
        ({**LOKR, "scalar": ()}, 1.0, CheckpointError, "is no factor of a LoRA"),
        ({**LOHA, **LOKR}, 1.0, CheckpointError, "do not fit one another"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    parts: Parts, alpha: float | None, error: type[Exception], said: str, tmp_path: Path
) -> None:
    save_file({"b.q.weight": torch.ones(6, 8)}, tmp_path / "base.safetensors")
    save_file(drawn("lora_unet_b_q", parts, alpha=alpha), tmp_path / "lora.safetensors")
    with pytest.raises(error, match=said):
        merged(tmp_path / "base.safetensors", tmp_path / "lora.safetensors")


@pytest.mark.parametrize("names", ["lora_unet_b_q", "base_model.model.b.q", "transformer.b.q"])
def test_a_bank_of_factors_takes_no_loha_or_lokr(names: str, tmp_path: Path) -> None:
    save_file(drawn(names, LOKR), tmp_path / "lora.safetensors")
    adapter = open_checkpoint(str(tmp_path / "lora.safetensors"))
    assert is_adapter(adapter)
    with pytest.raises(CheckpointError, match="name the base to merge it"):
        require_alike(adapter, ZeroBase("b", {}))
