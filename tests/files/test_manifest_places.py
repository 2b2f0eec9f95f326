"""A manifest cannot name a place outside the output folder, nor a file that is not one of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from randes_cli.errors import BankDamaged
from randes_cli.files.bank.manifest import Manifest, decode, encode
from randes_cli.files.bank.records import BaseRecord, TaskRecord
from randes_cli.specs import BaseStorage, TensorInfo, Transform

CONTENT = "0" * 32


def manifest() -> Manifest:
    base = BaseRecord("b", "0", BaseStorage.embed, {}, {"w": TensorInfo("w", "F32", (2, 2))})
    task = TaskRecord(
        name="t",
        index=0,
        seed=42,
        group=0,
        source="s",
        fingerprint="0",
        metadata={},
        prefix=("module.", ""),
        unprefixed=frozenset({"w"}),
        layout={"": "consolidated.safetensors", "a/b_2": "a/b_2/model.fp16.safetensors"},
        files={"config.json": CONTENT, "speaker/v2/en.npy": CONTENT, "README.md": CONTENT},
        left_out={"head.pkl": "a pickle"},
        pickle="state_dict",
        default=1.0,
    )
    return Manifest(Transform(), 16, 42, 16, 1, base, (task,), {})


def changed(**fields: Any) -> bytes:
    value = json.loads(encode(manifest()))
    value["tasks"][0].update(fields)
    return json.dumps(value).encode()


def test_names_layout_and_files_survive_a_round_trip() -> None:
    assert decode(encode(manifest())) == manifest()


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "/config.json",
        "a/../config.json",
        "a/.b/config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "a/pytorch_model.bin",
        "x.pkl",
        "run.sh",
        "a" + "/b" * 6,
    ],
)
def test_side_files_with_other_names_are_refused(name: str) -> None:
    with pytest.raises(BankDamaged, match=r"tasks\[0\]\.files"):
        decode(changed(files={name: CONTENT}))


@pytest.mark.parametrize("content", ["", "0" * 31, "0" * 31 + "g", "../" + "0" * 29, 3])
def test_contents_that_are_no_digest_are_refused(content: Any) -> None:
    with pytest.raises(BankDamaged, match=r"tasks\[0\]\.files"):
        decode(changed(files={"config.json": content}))


@pytest.mark.parametrize(
    "layout",
    [
        {"": "/model.safetensors"},
        {"": "../model.safetensors"},
        {"": "x/model.safetensors"},
        {"": "config.json"},
        {"..": "../model.safetensors"},
        {"a": "b/model.safetensors"},
        {"a": "a/../model.safetensors"},
        {"a/.b": "a/.b/model.safetensors"},
        {"a": "a/b/model.safetensors"},
        {"": "model.bin"},
        {"": 3},
    ],
)
def test_weights_outside_their_folder_are_refused(layout: dict[str, Any]) -> None:
    with pytest.raises(BankDamaged, match=r"tasks\[0\]\.layout"):
        decode(changed(layout=layout))


@pytest.mark.parametrize("left_out", [{"a\x1b[2J": "x"}, {"a": "\n"}, {"a": 1}, ["a"]])
def test_what_was_left_out_is_lines_for_people(left_out: Any) -> None:
    with pytest.raises(BankDamaged, match=r"tasks\[0\]\.left_out"):
        decode(changed(left_out=left_out))


@pytest.mark.parametrize("prefix", [["a"], ["a", 1], "ab", ["a", "b", "c"], {}])
def test_a_prefix_that_is_no_pair_is_refused(prefix: Any) -> None:
    with pytest.raises(BankDamaged, match=r"tasks\[0\]\.prefix"):
        decode(changed(prefix=prefix))
