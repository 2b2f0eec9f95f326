"""LoRA factors under other names than those of PEFT's own files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from randes_cli.errors import CheckpointError
from tests.adapters import merged, randomize
from tests.files.test_adapters import CASES, make_adapter
from tests.files.test_lora_formats import assert_same
from tests.models import SMALL


def test_factors_in_the_names_of_a_state_dict_are_merged_as_those_of_peft(tmp_path: Path) -> None:
    """As trainers write them that save the state dict of a model with its adapter."""
    base = tf.BertForSequenceClassification(tf.BertConfig(**SMALL))
    base.save_pretrained(tmp_path / "base")
    config = LoraConfig(
        r=2,
        target_modules=["query", "word_embeddings"],
        modules_to_save=["classifier"],
        use_dora=True,
    )
    model = get_peft_model(base, config, adapter_name="mine")
    randomize(model)
    model.save_pretrained(tmp_path / "peft")
    wanted = merged(tmp_path / "base", tmp_path / "peft/mine")
    file = tmp_path / "peft/mine/adapter_model.safetensors"

    plain = load_file(file)  # with the embedding, PEFT's save_pretrained writes both names
    both = {f"{n}.weight": t.clone() for n, t in plain.items() if n.endswith("magnitude_vector")}
    save_file(plain | both, file)
    again = merged(tmp_path / "base", tmp_path / "peft/mine")
    assert both and all((again[name] == values).all() for name, values in wanted.items())

    trained = {n: t.detach().clone() for n, t in model.named_parameters() if t.requires_grad}
    assert any(name.endswith("query.lora_A.mine.weight") for name in trained)
    save_file(trained, file)
    assert_same(
        merged(tmp_path / "base", tmp_path / "peft/mine"),
        {name: torch.from_numpy(values) for name, values in wanted.items()},
    )

    half = {
        n.replace("save.mine.", "save.default.").replace(".mine", ""): trained[n] for n in trained
    }
    save_file(half, file)
    again = merged(tmp_path / "base", tmp_path / "peft/mine")
    assert all((again[name] == values).all() for name, values in wanted.items())

    others = {n.replace(".mine.", ".other."): t.clone() for n, t in trained.items()}
    save_file(trained | others, file)
    with pytest.raises(CheckpointError, match=r"factors of several adapters \(mine, other\)"):
        merged(tmp_path / "base", tmp_path / "peft/mine")


@pytest.mark.parametrize("words", ["module.{}", "_orig_mod.module.{}", "{}_fsdp_wrapped_module."])
def test_patterns_are_those_of_names_before_a_wrapper_put_words_into_them(
    words: str, tmp_path: Path
) -> None:
    model, patterns = CASES["rank and alpha patterns"]
    make_adapter(tmp_path, model, torch.float32, **patterns)
    wanted = merged(tmp_path / "base", tmp_path / "adapter")
    file, start = tmp_path / "adapter/adapter_model.safetensors", "base_model.model."
    save_file({n.replace(start, words.format(start)): t for n, t in load_file(file).items()}, file)
    found = merged(tmp_path / "base", tmp_path / "adapter")
    assert all((found[name] == values).all() for name, values in wanted.items())
