"""Names of modules, as adapters have them, find the names that the base's file has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model

from randes_cli.build.pack import pack
from randes_cli.files.lora.families import Piece, aliases, pieces
from randes_cli.files.lora.stored_names import StoredNames
from randes_cli.read.places import UnpackOptions
from randes_cli.read.unpack import unpack
from randes_cli.specs import PackOptions, RunOptions, TaskInput

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
PICTURES: dict[str, Any] = {**SIZES, "image_size": 16, "patch_size": 8}
ENCODER: dict[str, Any] = {**SIZES, "vocab_size": 96, "pad_token_id": 1}
WORDS: dict[str, Any] = {**SIZES, "vocab_size": 96, "num_key_value_heads": 2}


def vit() -> Any:
    return tf.ViTForImageClassification(tf.ViTConfig(**PICTURES, num_labels=3))


def dinov2() -> Any:
    return tf.Dinov2ForImageClassification(tf.Dinov2Config(**PICTURES, num_labels=3))


def swin() -> Any:
    sizes: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}
    return tf.SwinForImageClassification(
        tf.SwinConfig(image_size=32, patch_size=4, window_size=4, **sizes)
    )


def segformer() -> Any:
    config: dict[str, Any] = {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "hidden_sizes": [16, 32],
        "patch_sizes": [3, 3],
        "strides": [2, 2],
        "num_attention_heads": [2, 2],
        "mlp_ratios": [2, 2],
        "decoder_hidden_size": 16,
    }
    return tf.SegformerForSemanticSegmentation(tf.SegformerConfig(**config))


def esm() -> Any:
    config = tf.EsmConfig(vocab_size=33, mask_token_id=32, pad_token_id=1, **SIZES)
    return tf.EsmForMaskedLM(config)


def gpt_neox() -> Any:
    return tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(vocab_size=96, **SIZES))


def mixtral() -> Any:
    return tf.MixtralForCausalLM(tf.MixtralConfig(**WORDS, num_local_experts=4))


def qwen2_vl() -> Any:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    eye = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    config = tf.Qwen2VLConfig(
        text_config={**WORDS, "rope_parameters": rope}, vision_config={**eye, "patch_size": 4}
    )
    return tf.Qwen2VLForConditionalGeneration(config)


def llava() -> Any:
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**PICTURES),
        text_config=tf.LlamaConfig(**WORDS),
        image_token_index=90,
    )
    return tf.LlavaForConditionalGeneration(config)


def paligemma() -> Any:
    config = tf.PaliGemmaConfig(
        vision_config=tf.SiglipVisionConfig(**PICTURES),
        text_config=tf.GemmaConfig(**WORDS, head_dim=8),
        image_token_index=90,
        projection_dim=32,
    )
    return tf.PaliGemmaForConditionalGeneration(config)


def gte() -> Any:
    return tf.GteForSequenceClassification(tf.GteConfig(**ENCODER, num_labels=3))


def nomic_bert() -> Any:
    return tf.NomicBertForMaskedLM(tf.NomicBertConfig(**ENCODER))


def jina_v3() -> Any:
    return tf.JinaEmbeddingsV3ForMaskedLM(tf.JinaEmbeddingsV3Config(**ENCODER, type_vocab_size=1))


#: Models whose modules have other names than their weights in files, and what is adapted.
LINEAR = {"target_modules": "all-linear"}
#: As "all-linear" has them in PEFT: parameters without their module's name.
EXPERTS = ["gate.weight", "gate_up_proj", "down_proj"]
CASES: list[tuple[Any, dict[str, Any]]] = [
    (vit, {**LINEAR, "modules_to_save": ["classifier"]}),
    (dinov2, {"target_modules": ["q_proj", "o_proj"], "modules_to_save": ["fc1"]}),
    (swin, {"target_modules": ["k_proj", "fc2"], "bias": "all"}),
    (segformer, {**LINEAR, "modules_to_save": ["layernorm_after"]}),
    (esm, {"target_modules": ["query"], "modules_to_save": ["LayerNorm"]}),
    (gpt_neox, {"target_modules": ["dense", "lm_head"]}),
    (mixtral, {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
    (qwen2_vl, LINEAR),
    (qwen2_vl, {"target_modules": r".*language_model.*\.(q|v)_proj"}),
    (paligemma, LINEAR),
    (llava, {"target_modules": ["q_proj", "v_proj"]}),
    (gte, {**LINEAR, "use_dora": True, "modules_to_save": ["classifier"]}),
    (gte, {"target_modules": ["v_proj"], "lora_bias": True, "use_rslora": True}),
    (nomic_bert, {"target_modules": ["q_proj", "k_proj", "down_proj"]}),
    (jina_v3, {"target_modules": ["k_proj", "fc1"], "bias": "lora_only"}),
    (jina_v3, {"target_modules": ["fc1"], "modules_to_save": ["v_proj"]}),
    (llava, {"target_modules": r".*language_model.*q_proj", "modules_to_save": ["lm_head"]}),
    (llava, {"target_modules": r".*vision_tower.*q_proj", "modules_to_save": ["linear_1"]}),
]


@pytest.mark.parametrize(("make", "options"), CASES)
def test_an_adapter_of_renamed_modules_is_merged_as_peft_merges_it(
    make: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path / "base")
    load = type(model).from_pretrained
    wrapped = get_peft_model(model, LoraConfig(r=4, **options))
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.08 * torch.randn_like(weight))
    wrapped.save_pretrained(tmp_path / "adapter")
    before = load(tmp_path / "base").state_dict()
    merged = PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "adapter")
    theirs = merged.merge_and_unload().state_dict()
    pack(str(tmp_path / "base"), [TaskInput("a", str(tmp_path / "adapter"))], tmp_path / "m.randes")
    unpack(tmp_path / "m.randes", ["a"], tmp_path / "out", UnpackOptions(), RunOptions())
    back, found = load(tmp_path / "out", output_loading_info=True)
    assert not any(found.values()), found
    ours = back.state_dict()
    for name, right in theirs.items():
        effect = float((right - before[name]).float().norm())
        assert float((ours[name] - right).float().norm()) <= 0.05 * effect + 1e-6, name
    assert any(not torch.equal(theirs[name], before[name]) for name in theirs)


def names(prefix: str, layers: int) -> list[str]:
    return [f"{prefix}layers.{n}.attn.{m}.weight" for n in range(layers) for m in ("q", "k")]


def numbered(word: str) -> list[str]:
    return [f"{word}.{n}.weight" for n in range(2)]


def test_a_part_that_lies_elsewhere_as_a_whole_is_found_there() -> None:
    base = [*names("text.", 2), *names("image.body.", 3), "text.head.lm_head.weight"]
    wanted = [*names("model.text.", 2), *names("model.image.body.", 3), "lm_head.weight"]
    found = StoredNames(base, wanted)
    assert [found.find(name) for name in wanted] == base
    assert found.inside("model.text.layers.0.attn") == "text.layers.0.attn"


def test_adapters_of_renamed_experts_may_stay_adapters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixtral()
    model.save_pretrained(tmp_path / "base")
    options: dict[str, Any] = {"target_modules": ["q_proj"], "target_parameters": EXPERTS[1:]}
    get_peft_model(model, LoraConfig(r=4, **options)).save_pretrained(tmp_path / "adapter")
    adapter = TaskInput("a", str(tmp_path / "adapter"))
    report = pack(
        str(tmp_path / "base"), [adapter], tmp_path / "m.randes", PackOptions(adapters=True)
    )
    assert report.adapters == "kept"


@pytest.mark.parametrize(
    ("stored", "module"),
    [
        ("attn.wq_a", "self_attn.q_a_proj"),
        ("mlp.shared_mlp.up_proj", "mlp.shared_experts.up_proj"),
        ("mlp.linear_gate", "mlp.gate_proj"),
        ("self_attn.gate_proj", "self_attn.g_proj"),
        ("self_attn.f_a_proj", "self_attn.forget_gate.f_a_proj"),
    ],
)
def test_renamed_parts_of_decoders_are_found(stored: str, module: str) -> None:
    base, wanted = ([f"model.layers.{n}.{m}.weight" for n in range(2)] for m in (stored, module))
    found = StoredNames(base, wanted)
    assert [found.find(name) for name in wanted] == base


def test_two_towers_of_one_model_are_told_apart() -> None:
    text, expert = "a.eye.model.language_model.model.", "a.expert.model."
    base = [*names(text, 2), *names(expert, 2)]
    found = StoredNames(base, [*names("model.dit.", 2), *names("model.vlm.language_model.", 2)])
    assert [found.find(name) for name in names("model.vlm.language_model.", 2)] == names(text, 2)
    assert [found.find(name) for name in names("model.dit.", 2)] == names("model.dit.", 2)


def test_a_module_of_an_older_library_is_found_in_a_base_as_memory_names_it() -> None:
    model = vit()
    base = list(model.state_dict())
    wanted = ["vit.encoder.layer.1.attention.attention.query.weight", "vit.layers.1.mlp.fc1.weight"]
    wanted.append("vit.encoder.layer.0.output.dense.bias")
    found = ["vit.layers.1.attention.q_proj.weight", wanted[1], "vit.layers.0.mlp.fc2.bias"]
    assert [StoredNames(base, wanted).find(name) for name in wanted] == found


def test_other_names_of_a_tensor_are_no_rivals_of_what_is_there() -> None:
    text = [f"model.text.layers.{n}.{m}.weight" for n in range(2) for m in ("q_proj", "o_proj")]
    eye = [f"model.eye.layers.{n}.{m}.weight" for n in range(2) for m in ("q_proj", "out_proj")]
    wanted = [name.replace("text.", "") for name in text]
    assert [StoredNames([*text, *eye], wanted).find(name) for name in wanted] == text


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        ([*names("text.", 2), *names("image.", 2)], names("model.", 2)),  # which of the two?
        ([*names("model.", 2), *names("image.", 3)], names("model.", 3)),  # a third layer
        ([*names("a.b.c.text.model.", 2), *names("a.expert.model.", 2)], names("model.dit.", 2)),
        ([*names("", 2), *numbered("out")], [*names("", 2), *numbered("head")]),
        ([*names("", 2), "segments.classifier.weight"], [*names("", 2), "classifier.weight"]),
        ([*names("", 2), "score.out.weight"], [*names("", 2), "model.score.out.weight"]),
    ],
)
def test_what_the_base_lacks_or_has_twice_is_not_guessed(
    base: list[str], wanted: list[str]
) -> None:
    found = StoredNames(base, wanted)
    lost = [name for name in wanted if name not in base]
    assert any(found.find(name) == name for name in lost)


def test_numbers_of_layers_and_experts_are_each_names_own() -> None:
    def names(layer: int, expert: int) -> tuple[str, str]:
        stem = f"model.layers.{layer}"
        return f"{stem}.block_sparse_moe.experts.{expert}.w1.weight", f"{stem}.attn.Wqkv.weight"

    pairs = [(layer, expert) for layer in (1, 9, 10, 12, 100) for expert in (0, 10, 345)]
    stored = [name for pair in pairs for name in names(*pair)]
    found, cut = aliases(stored), pieces(stored)
    assert "[" not in "".join(found)
    for layer, expert in pairs:
        experts, fused = names(layer, expert)
        assert found[experts.replace("block_sparse_moe", "mlp")] == experts
        whole = f"model.layers.{layer}.self_attn"
        assert [cut[f"{whole}.{x}_proj.weight"] for x in "qkv"] == [
            (fused, Piece(place, 3)) for place in range(3)
        ]


def test_a_name_that_two_would_have_stands_for_neither() -> None:
    stored = ["m.block_sparse_moe.gate.w", "m.block_sparse_moe.router.w"]
    assert aliases(stored) == {"m.mlp.gate.w": stored[0]}
    assert aliases(stored[1:]) == {"m.mlp.router.w": stored[1]}


def test_words_that_only_one_family_has_so_mean_nothing_elsewhere() -> None:
    stored = ["m.linear_pos.w", "transf_decoder.x"]
    assert aliases(stored) == {"m.relative_k_proj.w": stored[0]}
    assert aliases(stored[:1]) == {}
