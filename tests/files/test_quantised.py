"""Quantised weights are refused with what to use instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from tests.checkpoints import Packer, perturbed, random_state
from tests.files.folders import put, refused


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
        ("layer.trellis", "EXL3"),
        ("layer.Qidxs", "QuIP#"),
    ],
)
def test_quantised_tensors_are_refused_with_what_to_use(
    name: str, said: str, tmp_path: Path
) -> None:
    put(tmp_path / "model.safetensors", "layer.weight", name)
    refused(tmp_path / "model.safetensors", rf"{said}\); give the unquantised model")


@pytest.mark.parametrize(
    ("codes", "dtype", "scale"),
    [
        ("up.weight", "uint32", "up.scales"),
        ("up.weight", "int8", "up.scale"),
        ("up.weight", "int8", "up.weight_scales"),
        ("up.weight._data", "int8", "up.weight._scale"),
        ("up.W_q", "uint8", "up.scale"),
        ("up_blocks", "uint8", "up_scales"),
        ("up.weight", "uint8", "up.input_scale"),
        ("up.weight", "uint8", "up.weight_scale_2"),
        ("up.weight", "uint8", "up.weight_quantizer.scale"),
    ],
)
def test_integers_with_scales_are_quantised_weights(
    codes: str, dtype: str, scale: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    save_file({codes: np.ones((4, 8), dtype), scale: np.ones((4, 1), np.float16)}, file)
    refused(file, r"belong(s)? to quantised weights .*; give the unquantised model")


def test_integers_and_scales_of_other_kinds_are_no_quantised_weights(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "attn.relative_position_index": np.ones((4, 4), np.int64),
        "attn.logit_scale": np.ones((4, 1), np.float32),
        "mask": np.ones((4, 4), np.uint8),
        "logit_scale": np.ones((), np.float32),
        "norm.scale": np.ones(4, np.float32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    with open_checkpoint(str(tmp_path / "model.safetensors")) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("up.weight", torch.int8),  # the codes alone
        ("up.dense_weights", torch.int64),  # SpQR
        ("up.B", torch.int32),  # Marlin
    ],
)
def test_integers_in_the_place_of_a_weight_of_the_base_are_refused(
    name: str, dtype: torch.dtype, packer: Packer
) -> None:
    base = random_state({"up.weight": [8, 8], "table": [60, 60], "ids": [4]})
    task = {k: v for k, v in perturbed(base, seed=1).items() if k != "up.weight"}
    with pytest.raises(CheckpointError, match=rf"{name}.*in the place of the base's 'up\.weight'"):
        packer.pack(base, {"a": {**task, name: torch.ones(8, 8, dtype=dtype)}})
    kept = {**task, "up.weight": base["up.weight"], "extra.ids": torch.ones(8, 8, dtype=dtype)}
    packer.pack(base, {"a": kept})


@pytest.mark.parametrize("key", ["quantization", "compression_config", "quantization_config"])
def test_configurations_of_quantised_weights_are_known_by_every_key(
    key: str, tmp_path: Path
) -> None:
    put(tmp_path / "model.safetensors")
    for config in ({key: {"bits": 4}}, {"text_config": {key: {"bits": 4}}}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        refused(tmp_path, "config.json says that the weights are quantised")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "quantize_config.json").write_text('{"bits": 4}')
    refused(tmp_path, "quantize_config.json says that the weights are quantised")
    (tmp_path / "quantize_config.json").write_text('{"note": "never used"}')
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert "quantize_config.json" in checkpoint.side_files


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
