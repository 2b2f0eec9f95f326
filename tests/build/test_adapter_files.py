"""Adapters that are named by their weight file."""

from __future__ import annotations

import json
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


def test_the_config_of_a_quantised_base_beside_an_adapter_is_no_reason_to_refuse_it(
    tmp_path: Path,
) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 0)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert config["dtype"] == "float32"
    config.update(vocab_size=config["vocab_size"] + 8, dtype="float16")  # as while training
    (tmp_path / "cars" / "config.json").write_text(json.dumps(config))
    tasks = [TaskInput("cars", str(tmp_path / "cars"))]
    report = pack(str(tmp_path / "base"), tasks, tmp_path / "x.randes")
    rows = config["vocab_size"] - 8
    note = next(note for note in report.tasks[0].notes if note.startswith("config.json: "))
    for said in ("quantization_config is gone", f"vocab_size is {rows}", 'dtype is "float32"'):
        assert said in note
    unpack(tmp_path / "x.randes", "cars", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    wanted = {k: v for k, v in config.items() if k != "quantization_config"}
    assert found == {**wanted, "vocab_size": rows, "dtype": "float32"}
    pack(None, tasks, tmp_path / "kept.randes", PackOptions(adapters=True))
    unpack(tmp_path / "kept.randes", "cars", tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "config.json").read_text()) == config


def test_a_merged_model_in_a_folder_of_an_adapter_is_no_part_of_it(tmp_path: Path) -> None:
    save_base(tmp_path)
    save_adapter(tmp_path, "cars", 0)
    tasks = [TaskInput("cars", str(tmp_path / "cars"))]
    base = str(tmp_path / "base")
    pack(base, tasks, tmp_path / "before.randes")
    unpack(tmp_path / "before.randes", "cars", tmp_path / "cars" / "merged")
    report = pack(base, tasks, tmp_path / "after.randes")
    assert report.tasks[0].left_out == {"merged/": "a model or an adapter of its own"}
    unpack(tmp_path / "after.randes", "cars", tmp_path / "out")
    one, two = (load_file(tmp_path / f / "model.safetensors") for f in ("cars/merged", "out"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    pack(None, tasks, tmp_path / "kept.randes", PackOptions(adapters=True))
    unpack(tmp_path / "kept.randes", "cars", tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").rglob("*.safetensors")] == [WEIGHTS]
    assert not (tmp_path / "kept" / "merged").exists()
