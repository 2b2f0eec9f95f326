"""What a folder's weights are: one file, shards, a variant, components; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from randes_cli.errors import CheckpointError, MissingError
from randes_cli.files.checkpoint import open_checkpoint


def put(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ones((2, 2), np.float32) for name in names or ("w",)}, path)


def put_shards(folder: Path, stem: str, index: str, names: Iterable[str]) -> None:
    weights = {}
    for number, name in enumerate(names):
        file = f"{stem}-{number:05d}-of-00009.safetensors"
        put(folder / file, name)
        weights[name] = file
    (folder / index).write_text(json.dumps({"weight_map": weights}))


@pytest.mark.parametrize(
    ("file", "target"),
    [
        ("model.safetensors", "model.safetensors"),
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors"),
        ("adapter_model.safetensors", "adapter_model.safetensors"),
        ("pytorch_model.safetensors", "model.safetensors"),
        ("open_clip_model.safetensors", "open_clip_model.safetensors"),
        ("anything.st", "model.safetensors"),
        ("model.fp16.safetensors", "model.safetensors"),
        ("diffusion_pytorch_model.bf16.safetensors", "diffusion_pytorch_model.safetensors"),
    ],
)
def test_a_folder_with_one_weight_file_is_that_file(file: str, target: str, tmp_path: Path) -> None:
    put(tmp_path / file)
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.layout == {"": target}


@pytest.mark.parametrize(
    ("stem", "index"),
    [
        ("model", "model.safetensors.index.json"),
        ("model.fp16", "model.safetensors.index.fp16.json"),
        ("diffusion_pytorch_model", "diffusion_pytorch_model.safetensors.index.json"),
    ],
)
def test_shards_read_as_one(stem: str, index: str, tmp_path: Path) -> None:
    put_shards(tmp_path, stem, index, ["a", "b", "c"])
    for source in (tmp_path, tmp_path / index):
        with open_checkpoint(str(source)) as checkpoint:
            assert sorted(checkpoint.tensors) == ["a", "b", "c"]


def test_a_whole_file_goes_before_shards_and_variants(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors", "whole")
    put(tmp_path / "model.fp16.safetensors", "variant")
    put_shards(tmp_path, "model", "model.safetensors.index.json", ["shard"])
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["whole"]


def test_a_lone_variant_is_read_and_said(tmp_path: Path) -> None:
    put(tmp_path / "model.fp16.safetensors")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.notes == ("only the variant fp16 is there: read model.fp16.safetensors",)


def test_a_bare_file_has_no_layout_and_no_side_files(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with open_checkpoint(str(tmp_path / "model.safetensors")) as checkpoint:
        assert (checkpoint.layout, checkpoint.side_files) == ({}, {})


def test_a_pipeline_is_read_by_component(tmp_path: Path) -> None:
    index: dict[str, object] = {
        "_class_name": "P",
        "unet": ["diffusers", "U"],
        "text_encoder": ["transformers", "T"],
    }
    index |= {"scheduler": ["diffusers", "S"], "safety_checker": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    put(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", "conv.weight")
    put(tmp_path / "text_encoder" / "model.fp16.safetensors", "conv.weight")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    put(tmp_path / "all-in-one.safetensors", "ignored")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert sorted(checkpoint.tensors) == ["text_encoder/conv.weight", "unet/conv.weight"]
        assert checkpoint.layout == {
            "unet": "unet/diffusion_pytorch_model.safetensors",
            "text_encoder": "text_encoder/model.safetensors",
        }
        assert sorted(checkpoint.side_files) == [
            "model_index.json",
            "scheduler/scheduler_config.json",
        ]


def test_a_sentence_model_with_a_dense_layer_is_read_by_module(tmp_path: Path) -> None:
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    put(tmp_path / "model.safetensors", "encoder.weight")
    put(tmp_path / "2_Dense" / "model.safetensors", "linear.weight")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert sorted(checkpoint.tensors) == ["2_Dense/linear.weight", "encoder.weight"]
        assert sorted(checkpoint.side_files) == ["1_Pooling/config.json", "modules.json"]


def test_what_a_trainer_leaves_beside_the_weights_is_no_weight(tmp_path: Path) -> None:
    put(tmp_path / "anything.safetensors")
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt"):
        (tmp_path / name).write_bytes(b"x")
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


def refused(folder: Path, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        open_checkpoint(str(folder))


def test_a_folder_without_one_answer_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no safetensors file")
    put(tmp_path / "one.safetensors")
    put(tmp_path / "two.safetensors")
    refused(tmp_path, r"2 weight files \(one.safetensors, two.safetensors\); name one")
    put(tmp_path / "model.fp16.safetensors")
    put(tmp_path / "model.fp32.safetensors")
    refused(tmp_path, "variants fp16, fp32; name one")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": "../model.safetensors"}, "bad file name"),
        ({"a": "/etc/passwd"}, "bad file name"),
        ({"a": ".."}, "bad file name"),
        ({"a": "x\0y"}, "bad file name"),
        ({"a": 3}, "bad file name"),
        ({"a": "gone.safetensors"}, "shard gone.safetensors is missing"),
        ({"b": "shard.safetensors"}, "lacks tensor 'b'"),
        ({"a": "shard.safetensors"}, "does not name tensor 'extra'"),
        ({}, "has no weight_map"),
    ],
)
def test_an_index_that_lies_is_refused(
    weights: dict[str, object], said: str, tmp_path: Path
) -> None:
    put(tmp_path / "shard.safetensors", "a", "extra")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weights}))
    refused(tmp_path, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("layer.qweight", "GPTQ or AWQ"),
        ("layer.g_idx", "GPTQ"),
        ("layer.weight.absmax", "bitsandbytes 4-bit"),
        ("layer.weight.quant_state.bitsandbytes__nf4", "bitsandbytes 4-bit"),
        ("layer.SCB", "bitsandbytes 8-bit"),
        ("layer.weight_scale_inv", "fp8 with scales"),
        ("layer.weight_packed", "compressed-tensors"),
    ],
)
def test_quantised_tensors_are_refused_with_what_to_use(
    name: str, said: str, tmp_path: Path
) -> None:
    put(tmp_path / "model.safetensors", "layer.weight", name)
    refused(tmp_path / "model.safetensors", rf"{said}\); give the unquantised model")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "mxfp4"])
def test_a_quantisation_config_is_refused_by_name(method: str, tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors")
    config = {"quantization_config": {"quant_method": method}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, rf"quantised \({method}\); give the unquantised model")


def test_a_gguf_file_is_refused_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("model.gguf", "model.safetensors"):
        (tmp_path / name).write_bytes(b"GGUF" + bytes(60))
        refused(tmp_path / name, "a GGUF file: quantised weights; give the original safetensors")
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "a GGUF file")


def test_a_folder_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not found"):
        open_checkpoint(str(tmp_path / "nothing"))
