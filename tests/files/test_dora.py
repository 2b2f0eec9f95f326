"""DoRA, trainable tokens and other kinds of adapters: merged as PEFT merges them, or refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from safetensors.torch import load_file, save_file

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.lora import loading
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.lora.unmerged import require_alike
from randes_cli.files.source import ZeroBase
from tests.build.test_adapters_against_peft import gpt2, llama


def resnet(_: bool = False) -> Any:
    config = tf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return tf.ResNetForImageClassification(config)


def saved(folder: Path, model: Any, config: Any) -> dict[str, torch.Tensor]:
    """Save a base and a random adapter of it; PEFT's merged weights."""
    model.save_pretrained(folder / "base")
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn_like(weight))
    wrapped.save_pretrained(folder / "adapter")
    again = type(model).from_pretrained(folder / "base")
    whole = PeftModel.from_pretrained(again, folder / "adapter").merge_and_unload()
    return dict(whole.state_dict())


def read(folder: Path, pieces: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of base + adapter, read in pieces."""
    base = open_checkpoint(str(folder / "base"))
    source = MergedAdapter(base, open_checkpoint(str(folder / "adapter")), {"": config_of(folder)})
    made = {}
    for name, tensor in source.tensors.items():
        whole = np.empty(tensor.nbytes, np.uint8)
        if tensor.dtype != "F32":
            continue
        bounds = np.linspace(0, tensor.elements, pieces + 1).astype(int) * 4
        for start, stop in itertools.pairwise(bounds.tolist()):
            out = np.empty(stop - start, np.uint8)
            source.read(name, start, out)
            whole[start:stop] = out
        made[name] = whole.view(np.float32).reshape(tensor.shape)
    return made


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "base" / "config.json").read_text())
    return found


@pytest.mark.parametrize(
    ("make", "tie", "options"),
    [
        (llama, False, {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
        (llama, False, {"target_modules": ["embed_tokens", "lm_head"]}),
        (gpt2, True, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
        (resnet, False, {"target_modules": ["convolution"]}),
    ],
    ids=["linear", "embedding", "conv1d", "conv2d"],
)
def test_dora_is_merged_as_peft_merges_it_whatever_the_pieces(
    make: Any,
    tie: bool,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    theirs = saved(tmp_path, make(tie), LoraConfig(r=4, lora_alpha=6, use_dora=True, **options))
    ours = read(tmp_path)
    monkeypatch.setattr(loading, "_BLOCK", 100)  # elements that lengths are added up of at a time
    again = read(tmp_path, 7)
    for name, value in ours.items():
        assert np.array_equal(value, again[name])
        wanted = theirs[name].numpy()
        assert np.abs(value - wanted).max(initial=0) <= 2e-6 * max(1, np.abs(wanted).max()), name


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("kind", ["lora", "alone", "both stored"])
def test_trained_tokens_take_the_places_of_rows(kind: str, tie: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config: Any = LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 60])
    if kind == "alone":
        config = TrainableTokensConfig(token_indices=[3, 60])
    theirs = saved(tmp_path, llama(tie), config)
    if kind == "both stored" and tie:
        base = load_file(tmp_path / "base" / "model.safetensors")
        base["lm_head.weight"] = base["model.embed_tokens.weight"].clone()
        save_file(base, tmp_path / "base" / "model.safetensors")
    ours = read(tmp_path, 5)
    assert ("lm_head.weight" in ours) == (not tie or kind == "both stored")
    for name, value in ours.items():
        wanted = theirs[name].numpy()
        assert np.abs(value - wanted).max() <= 1e-6 * max(1, np.abs(wanted).max()), name


@pytest.mark.parametrize(
    ("change", "beside"),
    [
        ({"init_lora_weights": "mica"}, None),
        ({"velora_config": {"num_groups": 4}}, "lora_velora_embed"),
        ({"monteclora_config": {"num_samples": 2}}, "lora_monteclora_sampler.std_prior"),
    ],
)
def test_kinds_that_differ_in_training_alone_are_plain_lora(
    change: dict[str, Any], beside: str | None, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    theirs = saved(tmp_path, llama(False), LoraConfig(r=4, target_modules=["q_proj"]))
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    if beside:
        file = tmp_path / "adapter" / "adapter_model.safetensors"
        module = "base_model.model.model.layers.0.self_attn.q_proj"
        save_file({**load_file(file), f"{module}.{beside}": torch.ones(4)}, file)
    ours = read(tmp_path)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert np.abs(value - theirs[name].numpy()).max() <= 1e-6, name


def test_tokens_of_a_tied_head_alone_are_refused(tmp_path: Path) -> None:
    rows = {"lm_head": [1, 2]}
    config = LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=rows)
    saved(tmp_path, llama(True), config)
    with pytest.raises((CheckpointError, MismatchError), match="lm_head"):
        read(tmp_path)


OTHERS: dict[str, Any] = {
    "IA3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "OFT": peft.OFTConfig(r=2, oft_block_size=0, target_modules=["q_proj"]),
    "VERA": peft.VeraConfig(r=2, target_modules=["q_proj"]),
    "LN_TUNING": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "VBLORA": peft.VBLoRAConfig(r=2, target_modules=["q_proj"], num_vectors=8, vector_length=8),
    "PROMPT_TUNING": peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_other_kinds_of_adapters_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    model = llama(False)
    model.save_pretrained(tmp_path / "base")
    get_peft_model(model, OTHERS[kind]).save_pretrained(tmp_path / "adapter")
    advice = "works on a model's inputs" if kind.startswith("PR") else "merge it with PEFT"
    with pytest.raises(CheckpointError, match=f"{kind}.*{advice}"):
        read(tmp_path)


def test_a_bank_of_factors_takes_no_adapter_without_one(tmp_path: Path) -> None:
    saved(tmp_path, llama(False), TrainableTokensConfig(token_indices=[1]))
    adapter = open_checkpoint(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointError, match="without LoRA factors"):
        require_alike(adapter, ZeroBase("b", {}))
