"""Merging LoRA adapters, compared with PEFT itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from randes_cli.core.convert import numpy_dtype
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.lora.merged import MergedAdapter
from tests.adapters import llama, merged, t5
from tests.models import SMALL

#: More than any element of the random updates.
CHANGE = 0.1
LINEAR = ["q_proj", "v_proj", "down_proj"]


def gpt2() -> tf.PreTrainedModel:
    return tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4))


def classifier() -> tf.PreTrainedModel:
    return tf.BertForSequenceClassification(tf.BertConfig(**SMALL, num_labels=3))


def make_adapter(folder: Path, make: Any, dtype: torch.dtype, **options: Any) -> dict[str, Any]:
    """Save a base and an adapter of it with random factors; return PEFT's merged weights."""
    torch.manual_seed(0)
    base = make().to(dtype)
    base.save_pretrained(folder / "base")
    wrapped = get_peft_model(base, LoraConfig(**{"r": 4, "lora_alpha": 6, **options}))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if weight.requires_grad:
                weight.copy_(0.05 * torch.randn_like(weight) + ("bias" in name))
    wrapped.save_pretrained(folder / "adapter")
    again = type(base).from_pretrained(folder / "base", dtype=dtype)
    merged = PeftModel.from_pretrained(again, folder / "adapter").merge_and_unload()
    merged.save_pretrained(folder / "merged")
    return dict(merged.state_dict())


def read_merged(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of base + adapter by our own merging, whole, as float64."""
    found = merged(folder / "base", folder / "adapter")
    return {name: values.astype(np.float64) for name, values in found.items()}


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (llama, {"target_modules": LINEAR}),
    "rank-stabilised": (llama, {"target_modules": LINEAR, "use_rslora": True}),
    "rank and alpha patterns": (
        llama,
        {
            "target_modules": LINEAR,
            "rank_pattern": {"layers.1.self_attn.q_proj": 7, "down_proj": 2},
            "alpha_pattern": {"v_proj": 11, "^model.layers.0.self_attn.q_proj": 3},
        },
    ),
    "a saved head": (llama, {"target_modules": LINEAR, "modules_to_save": ["lm_head"]}),
    "a saved classifier": (
        classifier,
        {"target_modules": ["query"], "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"},
    ),
    "biases": (classifier, {"target_modules": ["query"], "bias": "lora_only"}),
    "embeddings": (llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "Conv1D": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "a Conv1D's parameter": (
        gpt2,
        {"target_modules": [], "target_parameters": ["attn.c_proj.weight", "c_attn.weight"]},
    ),
    "T5": (t5, {"target_modules": ["q", "v", "wo"]}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_a_merged_adapter_is_what_peft_merges_but_for_one_rounding(
    case: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    make, options = CASES[case]
    make_adapter(tmp_path, make, dtype, **options)
    ours = read_merged(tmp_path)
    with open_checkpoint(str(tmp_path / "merged")) as theirs:
        assert set(theirs.tensors) == set(ours)
        for name, tensor in theirs.tensors.items():
            raw = np.empty(tensor.nbytes, np.uint8)
            theirs.read(name, 0, raw)
            wanted = raw.view(numpy_dtype(tensor.dtype)).astype(np.float64).reshape(tensor.shape)
            off = np.abs(ours[name] - wanted)
            # PEFT rounds products and sums as well: in float32 to the last place of the largest,
            # in bfloat16 the change and then the sum.
            scale = np.abs(wanted).max(initial=0.0)
            if dtype == torch.bfloat16:
                scale = np.abs(wanted) + CHANGE
            assert np.all(off <= torch.finfo(dtype).eps * scale), name


def test_a_linear_layer_is_one_whatever_its_configuration_says(tmp_path: Path) -> None:
    make_adapter(tmp_path, llama, torch.float32, target_modules=LINEAR)
    before = read_merged(tmp_path)
    config = tmp_path / "adapter" / "adapter_config.json"
    found = {**json.loads(config.read_text()), "fan_in_fan_out": True}  # square weights fit either
    config.write_text(json.dumps(found))
    after = read_merged(tmp_path)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_any_range_of_elements_is_the_same_as_in_the_whole(tmp_path: Path) -> None:
    make_adapter(tmp_path, llama, torch.bfloat16, target_modules=LINEAR)
    base = open_checkpoint(str(tmp_path / "base"))
    merged = MergedAdapter(base, open_checkpoint(str(tmp_path / "adapter")))
    name = "model.layers.0.mlp.down_proj.weight"
    whole = np.empty(merged.tensors[name].nbytes, np.uint8)
    merged.read(name, 0, whole)
    for start, count in [(0, 1), (5, 30), (40, 20), (48, 48), (47, 50), (100, 1000), (1535, 1)]:
        out = np.empty(2 * count, np.uint8)
        merged.read(name, 2 * start, out)
        assert np.array_equal(out, whole[2 * start : 2 * (start + count)])


def test_the_adapter_finds_a_base_that_was_saved_without_its_head_prefix(tmp_path: Path) -> None:
    make_adapter(tmp_path, gpt2, torch.float32, target_modules=["c_attn"], fan_in_fan_out=True)
    plain = tf.GPT2LMHeadModel.from_pretrained(tmp_path / "base").transformer
    plain.save_pretrained(tmp_path / "base")
    assert "h.0.attn.c_attn.weight" in read_merged(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"lora_bias": True}, "lora_bias"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"r": 5}, "rank 5"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    make_adapter(tmp_path, llama, torch.float32, target_modules=["q_proj"])
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=said):
        read_merged(tmp_path)


def test_a_parameter_of_other_models_of_the_kind_lacks_nothing(tmp_path: Path) -> None:
    make_adapter(tmp_path, llama, torch.float32, target_modules=["q_proj"])
    path = tmp_path / "adapter" / "adapter_config.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "target_parameters": ["gate.weight"]}))
    assert read_merged(tmp_path)
    path.write_text(json.dumps({**found, "target_parameters": ["k_proj.weight"]}))
    with pytest.raises(CheckpointError, match=r"target_parameters 'k_proj\.weight'"):
        read_merged(tmp_path)


def test_an_adapter_of_another_base_is_refused_with_the_module(tmp_path: Path) -> None:
    make_adapter(tmp_path, llama, torch.float32, target_modules=["q_proj"])
    save_file({"other.weight": torch.ones(2, 2)}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(MismatchError, match=r"q_proj, which the base .* lacks"):
        read_merged(tmp_path)


def test_new_tokens_without_the_rows_of_an_untied_head_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = llama()
    base.save_pretrained(tmp_path / "base")
    base.resize_token_embeddings(70)
    config = LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"])
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(MismatchError, match=r"70 rows .* no new ones of 'lm_head\.weight'"):
        MergedAdapter(
            open_checkpoint(str(tmp_path / "base")), open_checkpoint(str(tmp_path / "adapter"))
        )
