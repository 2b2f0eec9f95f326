"""Folders that other programs wrote, or have not done writing, are called what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from randes_cli.errors import MissingError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.weight_file import TensorFile
from tests.checkpoints import random_state, save_sharded
from tests.files.folders import put, refused


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["model.onnx", "tf_model.h5"], r"but other weights \(model\.onnx, tf_model\.h5\)"),
        (["iter_0000100/mp_rank_00/model_optim_rng.pt"], "holds Megatron's parts"),
        (["weights/__0_0.distcp", "context/model.yaml"], "a distributed checkpoint"),
        (["snapshots/1f2e/model.safetensors", "refs/main"], "name the folder below snapshots/"),
        (["models--lab--a/snapshots/1f2e/model.safetensors"], "name a model of it as org/name"),
        (["model.safetensors.incomplete"], r"a download that is not complete \(model\.safe"),
        (["consolidated.00.pth", "consolidated.01.pth"], "2 parts of one model, one for each"),
        (["model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors"], "2 parts of one"),
    ],
)
def test_a_folder_of_another_program_is_called_what_it_is(
    files: list[str], said: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"run: git lfs pull"),
        (b"<!DOCTYPE html><title>401</title>", "an HTML page"),
        (b"", "an empty file"),
    ],
)
def test_what_lies_in_the_place_of_json_is_called_so(
    content: bytes, said: str, tmp_path: Path
) -> None:
    put(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(content)
    refused(tmp_path, f"config.json: .*{said}")


def test_a_config_with_infinity_is_no_reason_to_refuse_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "model.safetensors")
    text = '{"time_step_limit": [0.0, Infinity], "quantization_config": {"quant_method": "awq"}}'
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "config.json says that the weights are quantised")
    (tmp_path / "config.json").write_text('{"time_step_limit": [0.0, Infinity]}')
    with open_checkpoint(str(tmp_path)) as checkpoint:
        assert b"Infinity" in checkpoint.side_files["config.json"].content()


def test_a_link_to_weights_that_are_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").symlink_to("../../blobs/1f2e")
    refused(tmp_path / "model", r"a link that leads to .*blobs/1f2e, which is not there")
    (tmp_path / "gone.safetensors").symlink_to("1f2e")
    with pytest.raises(MissingError, match=r"gone.safetensors: a link to nothing"):
        TensorFile(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("sharded", [False, True])
def test_what_a_downloader_is_not_done_with_is_refused(sharded: bool, tmp_path: Path) -> None:
    """aria2 gives a file its whole size first, so that only what lies beside it tells."""
    if sharded:
        save_sharded(random_state({"a": [4], "b": [4]}), tmp_path, shards=2)
        name = "model-00002-of-00002.safetensors"
    else:
        put(tmp_path / "model.safetensors")
        name = "model.safetensors"
    open_checkpoint(str(tmp_path)).close()
    (tmp_path / f"{name}.aria2").write_bytes(b"x")
    refused(tmp_path, rf"{name}: a download that is not complete \({name}\.aria2 beside it")
    if not sharded:
        refused(tmp_path / name, "a download that is not complete")


@pytest.mark.parametrize("named", [False, True])
def test_components_that_differ_in_case_alone_are_refused(named: bool, tmp_path: Path) -> None:
    for folder in ("unet", "UNet"):
        put(tmp_path / folder / "model.safetensors")
    if len(list(tmp_path.iterdir())) < 2:
        return  # a system that cannot tell them apart
    if named:
        (tmp_path / "model_index.json").write_text('{"unet": [], "UNet": []}')
    else:
        put(tmp_path / "model.safetensors")
    refused(tmp_path, "the components UNet/ and unet/ differ in case alone|unet/ and UNet/ differ")


def test_a_run_whose_checkpoints_have_weights_beside_the_parts_is_none_of_parts(
    tmp_path: Path,
) -> None:
    for step in (500, 1000):
        put(tmp_path / f"checkpoint-{step}" / "model.safetensors")
        (tmp_path / f"checkpoint-{step}" / "zero_to_fp32.py").write_text("")
    refused(tmp_path, "it holds the checkpoints checkpoint-500, checkpoint-1000: name one of them")
