"""Adapters that are named by their weight file."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import transformers as tf
from peft import PeftModel
from safetensors.torch import load_file, save_file

from randes_cli.build.pack import pack
from randes_cli.read.unpack import unpack
from randes_cli.specs import PackOptions, TaskInput
from tests.build.test_adapter_banks import logits, save_adapter, save_base

WEIGHTS = "adapter_model.safetensors"


def test_an_adapter_named_by_its_file_is_the_one_of_its_folder(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 0, use_rslora=True, lora_alpha=64)
    base = str(tmp_path / "base")
    for number, source in enumerate((tmp_path / "cars", tmp_path / "cars" / WEIGHTS)):
        tasks = [TaskInput("cars", str(source))]
        merged, kept = tmp_path / f"{number}.merged", tmp_path / f"{number}.kept"
        pack(base, tasks, merged)
        unpack(merged, "cars", tmp_path / f"{number}.model")
        pack(None, tasks, kept, PackOptions(adapters=True))
        unpack(kept, "cars", tmp_path / f"{number}.adapter")
    for kind, name in (("model", "model.safetensors"), ("adapter", WEIGHTS)):
        one, two = (load_file(tmp_path / f"{n}.{kind}" / name) for n in (0, 1))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    wrapped = PeftModel.from_pretrained(
        tf.LlamaForCausalLM.from_pretrained(base), tmp_path / "1.adapter"
    )
    whole = tf.LlamaForCausalLM.from_pretrained(tmp_path / "1.model")
    assert torch.allclose(logits(wrapped), logits(whole), atol=2e-2)


def test_an_adapter_beside_a_model_is_not_taken_for_the_model(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 0)
    shutil.copy(tmp_path / "base" / "model.safetensors", tmp_path / "cars")
    tasks = [TaskInput("cars", str(tmp_path / "cars" / WEIGHTS))]
    report = pack(None, tasks, tmp_path / "x.randes", PackOptions(adapters=True))
    factors = load_file(tmp_path / "cars" / WEIGHTS)
    assert report.tasks[0].superposed == len(factors)


def test_a_bank_of_adapters_says_which_one_has_no_configuration(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 0)
    save_file(load_file(tmp_path / "cars" / WEIGHTS), tmp_path / "lone.safetensors")
    tasks = [TaskInput("lone", str(tmp_path / "lone.safetensors"))]
    tasks += [TaskInput("cars", str(tmp_path / "cars"))]
    report = pack(None, tasks, tmp_path / "x.randes", PackOptions(adapters=True))
    lone, cars = (task.notes for task in report.tasks)
    assert lone == (
        "comes without an adapter_config.json, which PEFT needs: name the folder that has both",
    )
    assert cars == ()
    assert report.notes == ("lone, cars: the same factors, to the byte",)
