"""Adapters of a base whose vocabulary was resized before training, as PEFT merges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from randes_cli import TaskInput, pack
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.read.unpack import unpack
from randes_cli.specs import PackOptions
from tests.adapters import llama
from tests.build.test_adapters_against_peft import logits, trained
from tests.models import SMALL

ROWS = 70


def save_adapter(folder: Path, *, tie: bool, **options: Any) -> torch.Tensor:
    """Save a base and an adapter that knows more tokens; return what PEFT's model says."""
    torch.manual_seed(0)
    base = llama()
    base.config.tie_word_embeddings = tie
    tf.LlamaForCausalLM(base.config).save_pretrained(folder / "base")
    model = tf.LlamaForCausalLM.from_pretrained(folder / "base")
    model.resize_token_embeddings(ROWS)
    config = LoraConfig(r=4, target_modules=["q_proj"], **options)
    wrapped = trained(get_peft_model(model, config))
    wrapped.save_pretrained(folder / "adapter")
    return logits(wrapped)


@pytest.mark.parametrize("tie", [True, False])
def test_rows_trained_in_a_longer_vocabulary_are_merged_with_all_of_it(
    tie: bool, tmp_path: Path
) -> None:
    wanted = save_adapter(tmp_path, tie=tie, trainable_token_indices=[3, 65, 66])
    pack(str(tmp_path / "base"), [TaskInput("a", str(tmp_path / "adapter"))], tmp_path / "b.randes")
    unpack(tmp_path / "b.randes", "a", tmp_path / "out")
    back, found = tf.LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found[f"{what}_keys"] for what in ("missing", "mismatched", "unexpected")), found
    assert back.config.vocab_size == ROWS
    assert torch.allclose(logits(back), wanted, atol=0.01)
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")) is not tie


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("added_tokens.json", '{"<x>": 64, "<y>": 69}'),
        ("tokenizer.json", '{"added_tokens": [{"id": 69, "content": "<y>"}, {"id": 3}]}'),
    ],
)
def test_tokens_of_an_adapter_without_their_rows_are_told_of(
    name: str, text: str, tmp_path: Path
) -> None:
    save_adapter(tmp_path, tie=False, trainable_token_indices=[69])
    (tmp_path / "adapter" / name).write_text(text)
    tasks = [TaskInput("a", str(tmp_path / "adapter"))]
    said = "its tokenizer has the token 69, and the merged embedding 64 rows"
    report = pack(str(tmp_path / "base"), tasks, tmp_path / "whole.randes")
    assert not any("its tokenizer" in note for note in report.tasks[0].notes)

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(file).items() if "_proj.lora" in n}, file)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"trainable_token_indices": [', '"x": ['))
    report = pack(str(tmp_path / "base"), tasks, tmp_path / "less.randes")
    assert any(note.startswith(said) for note in report.tasks[0].notes)


def test_an_embedding_trained_apart_from_its_head_needs_the_heads_new_rows(tmp_path: Path) -> None:
    wanted = save_adapter(tmp_path, tie=True, modules_to_save=["embed_tokens"])
    tasks = [TaskInput("a", str(tmp_path / "adapter"))]
    pack(str(tmp_path / "base"), tasks, tmp_path / "b.randes")
    unpack(tmp_path / "b.randes", "a", tmp_path / "out")
    back = tf.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(back), wanted, atol=0.01)

    file = tmp_path / "adapter" / "adapter_model.safetensors"
    without = {name: value for name, value in load_file(file).items() if "lm_head" not in name}
    save_file(without, file)
    with pytest.raises(MismatchError, match=r"apart from 'lm_head\.weight', whose new rows"):
        pack(str(tmp_path / "base"), tasks, tmp_path / "c.randes")


@pytest.mark.parametrize("saves_bias", [True, False])
def test_a_longer_vocabulary_of_a_masked_model_has_a_bias_that_is_longer_too(
    saves_bias: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = tf.BertConfig(**{**SMALL, "vocab_size": 64, "num_hidden_layers": 1})
    tf.BertForMaskedLM(config).save_pretrained(tmp_path / "base")
    model = tf.BertForMaskedLM.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(ROWS)
    options: Any = {} if saves_bias else {"trainable_token_indices": {"word_embeddings": [65]}}
    wrapped = trained(get_peft_model(model, LoraConfig(r=4, target_modules=["query"], **options)))
    wrapped.save_pretrained(tmp_path / "adapter")
    tasks = [TaskInput("a", str(tmp_path / "adapter"))]
    if not saves_bias:
        with pytest.raises(MismatchError, match=r"no new ones of 'cls\.predictions\.bias'"):
            pack(str(tmp_path / "base"), tasks, tmp_path / "b.randes")
        return
    pack(str(tmp_path / "base"), tasks, tmp_path / "b.randes")
    unpack(tmp_path / "b.randes", "a", tmp_path / "out")
    back = tf.BertForMaskedLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(back), logits(wrapped), atol=0.01)


@pytest.mark.parametrize("tie", [True, False])
def test_new_rows_of_a_head_need_those_of_its_embedding(tie: bool, tmp_path: Path) -> None:
    save_adapter(tmp_path, tie=tie, modules_to_save=["lm_head"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if "embed" not in name}
    save_file(kept, file)
    with pytest.raises(MismatchError, match=r"70 rows of 'lm_head.* no new ones of 'model\.embed"):
        tasks = [TaskInput("a", str(tmp_path / "adapter"))]
        pack(str(tmp_path / "base"), tasks, tmp_path / "b.randes")


def test_an_adapter_with_a_classifiers_head_comes_back_as_that_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    load = tf.LlamaForSequenceClassification.from_pretrained
    model = load(tmp_path / "base", num_labels=3, pad_token_id=0)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS")
    trained(get_peft_model(model, config)).save_pretrained(tmp_path / "adapter")
    again = load(tmp_path / "base", num_labels=3, pad_token_id=0)
    wanted = logits(PeftModel.from_pretrained(again, tmp_path / "adapter"))
    tasks = [TaskInput("a", str(tmp_path / "adapter"))]
    pack(str(tmp_path / "base"), tasks, tmp_path / "b.randes")
    unpack(tmp_path / "b.randes", "a", tmp_path / "out")
    config = tf.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.architectures == ["LlamaForSequenceClassification"]
    back = getattr(tf, config.architectures[0]).from_pretrained(tmp_path / "out", pad_token_id=0)
    assert torch.allclose(logits(back), wanted, atol=0.01)


@pytest.mark.parametrize("kept", [True, False])
def test_factors_whose_values_zero_kept_elsewhere_are_called_so(kept: bool, tmp_path: Path) -> None:
    save_adapter(tmp_path, tie=False)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    factors = load_file(file)
    name = next(name for name in factors if "lora_B" in name)
    save_file({**factors, name: torch.empty(0)}, file)
    base = None if kept else str(tmp_path / "base")
    tasks = [TaskInput("a", str(tmp_path / "adapter"))]
    with pytest.raises(CheckpointError, match=r"lora_B.* has shape \[0\]: a placeholder of ZeRO-3"):
        pack(base, tasks, tmp_path / "b.randes", PackOptions(adapters=kept))


@pytest.mark.parametrize(
    ("below", "said"),
    [(".base_layer", "'model.layers.0.self_attn.q_proj.base_layer.weight' is below"), ("", "part")],
)
def test_a_model_saved_with_its_adapter_beside_its_weights_is_said_to_be(
    below: str, said: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base = tf.LlamaForCausalLM(
        tf.LlamaConfig(**{**SMALL, "vocab_size": 2048, "num_hidden_layers": 1})
    )
    base.save_pretrained(tmp_path / "base")
    wrapped = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"])).base_model.model
    state = {n.replace(".base_layer", below): v.clone() for n, v in wrapped.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    tasks = [TaskInput("a", str(tmp_path / "a.safetensors"))]
    report = pack(str(tmp_path / "base"), tasks, tmp_path / "b.randes")
    (note,) = [note for note in report.tasks[0].notes if "merge_and_unload" in note]
    assert said in note
