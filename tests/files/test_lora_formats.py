"""LoRA in other forms than a PEFT folder of linear layers: diffusers' files, fused experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers as tf
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
)
from safetensors.torch import load_file, save_file

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.lora.unmerged import is_adapter
from tests.adapters import Arrays, merged, randomize
from tests.models import GROUPED, unet

pytestmark = pytest.mark.filterwarnings("ignore:While injecting", "ignore:The following")


def assert_same(ours: Arrays, theirs: dict[str, torch.Tensor], prefix: str = "") -> None:
    assert {name for name in ours if name.startswith(prefix)} == {prefix + n for n in theirs}
    for name, tensor in theirs.items():
        wanted = tensor.detach().numpy()
        off = np.abs(ours[prefix + name] - wanted)
        assert off.max(initial=0) <= 1e-6 * max(1, np.abs(wanted).max(initial=0)), name


def text_encoder() -> Any:
    config = tf.CLIPTextConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    return tf.CLIPTextModel(config)


def pipeline(folder: Path) -> tuple[Any, Any]:
    """Write what randes reads of a pipeline: its index and two components."""
    torch.manual_seed(0)
    parts = unet(16), text_encoder()
    parts[0].save_pretrained(folder / "unet")
    parts[1].save_pretrained(folder / "text_encoder")
    index = {"unet": ["diffusers", "X"], "text_encoder": ["transformers", "Y"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return parts


def adapt(model: Any, config: LoraConfig) -> dict[str, torch.Tensor]:
    inject_adapter_in_model(config, model)
    model.peft_config = {"default": config}
    randomize(model)
    return dict(get_peft_model_state_dict(model, adapter_name="default"))


def fused(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a model with its adapters merged, under their own names."""
    for layer in [module for module in model.modules() if hasattr(module, "lora_A")]:
        layer.merge()
    state = {n: t for n, t in model.state_dict().items() if "lora_" not in n}
    return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}


#: Factors of one module of a component.
PLAIN = ("unet.b.q.lora_A.weight", "unet.b.q.lora_B.weight")
#: Modules that a form has words for besides attention's: in its own, diffusers reads no others.
MORE = {"peft": ["conv1", "proj_in"], "diffusers": []}
FORMS = {"peft": lambda state: state, "diffusers": diffusers.utils.convert_state_dict_to_diffusers}


@pytest.mark.parametrize("metadata", [False, True], ids=["alpha is the rank", "metadata"])
@pytest.mark.parametrize("form", FORMS)
def test_a_diffusers_lora_of_a_pipeline_is_merged_as_diffusers_fuses_it(
    form: str, metadata: bool, tmp_path: Path
) -> None:
    one, two = pipeline(tmp_path / "pipe")
    configs = (
        LoraConfig(r=4, lora_alpha=10, target_modules=["to_q", "to_out.0", *MORE[form]]),
        LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "fc1"], rank_pattern={"fc1": 3}),
    )
    layers = [
        FORMS[form](adapt(part, config)) for part, config in zip((one, two), configs, strict=True)
    ]
    words = [
        json.loads(json.dumps(c.to_dict(), default=list)) if metadata else None for c in configs
    ]
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora",
        unet_lora_layers=layers[0],
        text_encoder_lora_layers=layers[1],
        unet_lora_adapter_metadata=words[0],
        text_encoder_lora_adapter_metadata=words[1],
    )
    ours = merged(tmp_path / "pipe", tmp_path / "lora")

    state, alphas, found = diffusers.StableDiffusionPipeline.lora_state_dict(
        str(tmp_path / "lora"), return_lora_metadata=True
    )
    whole = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "pipe/unet")
    whole.load_lora_adapter(state, prefix="unet", network_alphas=alphas, metadata=found)
    assert_same(ours, fused(whole), "unet/")
    encoder = tf.CLIPTextModel.from_pretrained(tmp_path / "pipe/text_encoder")
    alone = LoraConfig(
        r=2,
        lora_alpha=2,
        target_modules=["q_proj", "fc1"],
        rank_pattern={"fc1": 3},
        alpha_pattern={"fc1": 3},
    )  # what diffusers makes of factors that say nothing of their scaling
    inject_adapter_in_model(configs[1] if metadata else alone, encoder)
    encoder.load_state_dict(two.state_dict())
    assert_same(ours, fused(encoder), "text_encoder/")


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_a_diffusers_lora_of_a_unet_alone_fits_that_unet(
    prefix: str, dora: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = unet(16)
    model.save_pretrained(tmp_path / "unet")
    config = LoraConfig(r=4, lora_alpha=10, target_modules=["to_k", "conv2"], use_dora=dora)
    state = adapt(model, config)
    (tmp_path / "lora").mkdir()
    save_file(
        {f"{prefix}{name}": tensor for name, tensor in state.items()},
        tmp_path / "lora/pytorch_lora_weights.safetensors",
    )
    whole = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    whole.load_lora_adapter(state, prefix=None)
    assert_same(merged(tmp_path / "unet", tmp_path / "lora"), fused(whole))


def test_the_attention_processors_of_old_diffusers_files_are_merged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = unet(16)
    model.save_pretrained(tmp_path / "unet")
    block = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    weights = {name: torch.randn(2, 16) for name in ("to_q", "to_out")}
    state = {}
    for name, down in weights.items():
        state[f"unet.{block}.processor.{name}_lora.down.weight"] = down
        state[f"unet.{block}.processor.{name}_lora.up.weight"] = down.T.contiguous()
    (tmp_path / "lora").mkdir()
    save_file(state, tmp_path / "lora/pytorch_lora_weights.safetensors")
    ours = merged(tmp_path / "unet", tmp_path / "lora")
    wanted = model.state_dict()
    for name, down in weights.items():
        wanted[f"{block}.{name}{'.0' * (name == 'to_out')}.weight"] += down.T @ down
    assert_same(ours, wanted)


def mixtral() -> Any:
    return tf.MixtralForCausalLM(tf.MixtralConfig(**GROUPED, num_local_experts=3))


def qwen() -> Any:
    config = tf.Qwen3MoeConfig(**GROUPED, moe_intermediate_size=24, num_experts=3)
    return tf.Qwen3MoeForCausalLM(config)


def gpt_oss() -> Any:
    config = tf.GptOssConfig(**{**GROUPED, "intermediate_size": 32}, num_local_experts=3)
    return tf.GptOssForCausalLM(config)


BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.parametrize("parameters", [BOTH, BOTH[:1], BOTH[1:]], ids=["both", "in", "out"])
@pytest.mark.parametrize("make", [mixtral, qwen, gpt_oss])
def test_updates_of_fused_experts_are_merged_as_peft_merges_them(
    make: Any, parameters: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path / "base")
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj"],
        target_parameters=parameters,
        rank_pattern={"experts.down_proj": 2} if BOTH[1] in parameters else {},
        alpha_pattern={"1.mlp.experts.gate_up_proj": 5} if BOTH[0] in parameters else {},
    )
    wrapped = get_peft_model(model, config)
    randomize(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    again = type(model).from_pretrained(tmp_path / "base")
    whole = PeftModel.from_pretrained(again, tmp_path / "adapter").merge_and_unload()
    whole.save_pretrained(tmp_path / "merged")
    theirs = load_file(tmp_path / "merged/model.safetensors")
    assert_same(merged(tmp_path / "base", tmp_path / "adapter"), theirs)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.layers.0.q_proj.lora_a", "model.layers.0.q_proj.lora_b"], "mlx"),
        (["unet.b.q.oft_blocks"], "LyCORIS"),
        ([*PLAIN, "unet.conv_in.diff"], "whole differences"),
        ([*PLAIN, "unet.norm.diff_b"], "whole differences"),
        ([*PLAIN, "clip_l"], "'clip_l' belongs to no part that it adapts"),
        ([*PLAIN, "unet.b.q.lora_A.second.weight"], "are of several adapters"),
    ],
)
def test_other_kinds_of_lora_are_called_what_they_are(
    names: list[str], said: str, tmp_path: Path
) -> None:
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "a.safetensors")
    save_file({"b.q.weight": torch.ones(2, 2)}, tmp_path / "base.safetensors")
    with open_checkpoint(str(tmp_path / "a.safetensors")) as adapter:
        assert is_adapter(adapter)
        base = open_checkpoint(str(tmp_path / "base.safetensors"))
        with pytest.raises(CheckpointError, match=said):
            MergedAdapter(base, adapter)


def test_factors_without_any_word_of_their_scaling_are_refused(tmp_path: Path) -> None:
    names = ["layers.0.q.lora_A.weight", "layers.0.q.lora_B.weight"]
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "a.safetensors")
    save_file({"layers.0.q.weight": torch.ones(2, 2)}, tmp_path / "base.safetensors")
    with open_checkpoint(str(tmp_path / "a.safetensors")) as adapter:
        base = open_checkpoint(str(tmp_path / "base.safetensors"))
        with pytest.raises(CheckpointError, match=r"without adapter_config\.json"):
            MergedAdapter(base, adapter)


def test_a_lora_of_a_component_that_the_base_lacks_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text_encoder().save_pretrained(tmp_path / "base")
    (tmp_path / "lora").mkdir()
    names = ["unet.mid.to_q.lora_A.weight", "unet.mid.to_q.lora_B.weight"]
    save_file(
        {name: torch.ones(2, 2) for name in names},
        tmp_path / "lora/pytorch_lora_weights.safetensors",
    )
    with pytest.raises(MismatchError, match=r"adapts mid\.to_q"):
        merged(tmp_path / "base", tmp_path / "lora")
