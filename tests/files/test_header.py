"""The header reader: a table of malformed files, each with its exact reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from randes_cli.errors import CheckpointError
from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.header import parse_header, parse_json
from randes_cli.files.json_text import encode_header
from randes_cli.limits import CONTROL, LONGEST_NAME, has_control
from randes_cli.specs import ITEM_SIZE, TensorInfo


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file_of(header: Any, data: int = 8) -> bytes:
    """A file with this header (an object or its text) and so many data bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


TWICE = b"{" + b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' * 2
DEEP = b'{"__metadata__":' + b"[" * 100_000

MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "three bytes": (b"abc", "not a safetensors file: shorter than 8 bytes"),
    "length 0": (bytes(8), "Expecting value"),
    "length 0 and data": (bytes(64), "not a safetensors file"),
    "length 2^63": ((2**63).to_bytes(8, "little") + b"{}", "a header of 9223372036854775808 bytes"),
    "length over the limit": (
        (100_000_001).to_bytes(8, "little") + b"{}",
        "not a safetensors file: a header of 100000001 bytes",
    ),
    "length beyond the file": (
        (500).to_bytes(8, "little") + b"{}",
        "truncated: 508 header bytes declared, 10 there",
    ),
    "not JSON": (file_of(b"{]"), "Expecting property name"),
    "a list": (file_of(b"[]   "), "not a safetensors file"),
    "duplicate keys": (file_of(TWICE[:-1] + b"}"), "duplicate key 'a'"),
    "duplicate keys in the metadata": (
        file_of(b'{"__metadata__":{"k":"1","k":"2"},' + json.dumps({"a": entry()}).encode()[1:]),
        "duplicate key 'k'",
    ),
    "bad UTF-8": (file_of(b'{"\xff":1}'), "not UTF-8 at byte 2"),
    "half a character": (
        file_of(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "an escape of half a character",
    ),
    "NaN": (file_of(b'{"a":NaN}'), "NaN is not JSON"),
    "Infinity": (file_of(b'{"a":-Infinity}'), "-Infinity is not JSON"),
    "deep nesting": (file_of(DEEP), "nested too deeply"),
    "overlap": (
        file_of({"a": entry(), "b": entry(offsets=[4, 12])}, 12),
        "tensor 'b': its data overlap or leave a hole",
    ),
    "hole": (
        file_of({"a": entry(), "b": entry(offsets=[9, 17])}, 17),
        "tensor 'b': its data overlap or leave a hole",
    ),
    "hole at the start": (
        file_of({"a": entry(offsets=[8, 16])}, 16),
        "tensor 'a': its data overlap or leave a hole",
    ),
    "shape against bytes": (
        file_of({"a": entry(shape=[3])}),
        "tensor 'a': shape, dtype and data_offsets disagree",
    ),
    "offsets backwards": (
        file_of({"a": entry(offsets=[8, 0])}),
        "tensor 'a': shape, dtype and data_offsets disagree",
    ),
    "an overflowing shape": (
        file_of({"a": entry(shape=[2**62, 2**62, 2**62])}),
        "tensor 'a': shape, dtype and data_offsets disagree",
    ),
    "a negative dimension": (file_of({"a": entry(shape=[-2])}), "tensor 'a': bad shape"),
    "a boolean dimension": (file_of({"a": entry(shape=[True])}), "tensor 'a': bad shape"),
    "a fractional dimension": (file_of({"a": entry(shape=[2.0])}), "tensor 'a': bad shape"),
    "a dimension of 2^63": (
        file_of({"a": entry(shape=[0, 2**63], offsets=[0, 0])}, 0),
        "tensor 'a': bad shape",
    ),
    "a number for a shape": (file_of({"a": entry(shape=2)}), "tensor 'a': bad shape"),
    "a number for offsets": (file_of({"a": entry(offsets=8)}), "tensor 'a': bad data_offsets"),
    "too many dimensions": (file_of({"a": entry(shape=[1] * 65)}), "tensor 'a': bad shape"),
    "three offsets": (file_of({"a": entry(offsets=[0, 4, 8])}), "tensor 'a': bad data_offsets"),
    "negative offsets": (file_of({"a": entry(offsets=[-8, 0])}), "tensor 'a': bad data_offsets"),
    "unknown dtype": (
        file_of({"a": entry("F4")}),
        "tensor 'a': dtype 'F4' is packed or unknown; give the unquantised checkpoint",
    ),
    "dtype of another kind": (file_of({"a": entry(3)}), "tensor 'a': dtype '3' is packed"),  # type: ignore[arg-type]
    "missing field": (
        file_of({"a": {"dtype": "F32", "shape": [2]}}),
        "tensor 'a': not dtype, shape and data_offsets",
    ),
    "surplus field": (
        file_of({"a": entry() | {"scale": 1}}),
        "tensor 'a': not dtype, shape and data_offsets",
    ),
    "metadata of numbers": (
        file_of({"__metadata__": {"a": 1}, "a": entry()}),
        "__metadata__ is not a map of strings",
    ),
    "truncated data": (file_of({"a": entry()}, 7), "truncated: "),
    "other bytes behind": (file_of({"a": entry()}, 9), "followed by other bytes: "),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90\n",
        "a Git LFS pointer, not the file (run: git lfs pull)",
    ),
    "HTML": (b"<!DOCTYPE html><html></html>", "an HTML page, not a checkpoint"),
    "html": (b"<html><body>gone</body></html>", "an HTML page, not a checkpoint"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(40), "a GGUF file: quantised weights"),
    "zipped pickle": (b"PK\x03\x04\x14\0\x08\x08" + bytes(60), "pickled weights"),
    "plain pickle": (b"\x80\x02}q\0." + bytes(60), "pickled weights"),
    "new pickle": (b"\x80\x05}q\0." + bytes(60), "pickled weights"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_with_its_name_and_its_reason(
    tmp_path: Path, case: str
) -> None:
    data, reason = MALFORMED[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(path))
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert reason in said
    assert "\n" not in said


@pytest.mark.parametrize("length", [640, 1152, 0x0380, 0x10280])
def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    tensor = TensorInfo("a", "F32", (2,))
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_header([tensor], {"k": "v"}, length=length) + bytes(8))
    with open_checkpoint(str(path)) as opened:
        assert dict(opened.tensors) == {"a": tensor}


def test_a_header_in_use_vouches_for_no_file_of_another_size_and_no_other_bytes() -> None:
    data = file_of({"n" * LONGEST_NAME: entry()}, 0)[8:]
    size = 8 + len(data) + 8
    held = parse_header(data, file_size=size)
    assert parse_header(data, file_size=size) is parse_header(data) is held
    assert held.file_size == size
    for other in (size - 1, size + 1):
        with pytest.raises(ValueError, match=f"{size} bytes declared, {other} there"):
            parse_header(data, file_size=other)
    for wrong in (b"x" + data[1:], data + b"}", data[:-1]):
        with pytest.raises(ValueError, match=r"Expecting|Extra data"):
            parse_header(wrong)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_or_a_value_error(data: bytes) -> None:
    try:
        parse_header(data, file_size=8 + len(data))
    except ValueError:
        return
    assert json.loads(data) is not None


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: not CONTROL.search(name)
)


@given(
    st.dictionaries(
        NAMES.filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(ITEM_SIZE)), st.lists(st.integers(0, 5), max_size=3)),
        max_size=6,
    ),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just("v"), max_size=2),
)
def test_what_is_encoded_is_read_back(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str]
) -> None:
    wanted = [TensorInfo(name, dtype, tuple(shape)) for name, (dtype, shape) in tensors.items()]
    data = encode_header(wanted, metadata)
    size = len(data) + sum(tensor.nbytes for tensor in wanted)
    found = parse_header(data[8:], file_size=size)
    assert sorted(found.tensors.values(), key=str) == sorted(wanted, key=str)
    assert found.metadata == metadata
    assert len(data) % 8 == 0
    position = len(data)
    for tensor in found.tensors.values():
        assert found.starts[tensor.name] == position
        position += tensor.nbytes


def test_the_reader_and_the_stock_library_agree_on_a_stock_file(tmp_path: Path) -> None:
    path = tmp_path / "stock.safetensors"
    state = {"b": torch.arange(6).reshape(2, 3), "a": torch.ones(3).half(), "s": torch.tensor(1.5)}
    save_file(state, path, {"who": "me"})
    with open_checkpoint(str(path)) as ours, safe_open(path, "pt") as stock:
        assert set(ours.tensors) == set(stock.keys())
        assert ours.metadata == stock.metadata()
        for name, info in ours.tensors.items():
            assert list(info.shape) == stock.get_slice(name).get_shape()
            assert info.dtype == stock.get_slice(name).get_dtype()


def test_the_stock_library_opens_a_header_with_reserved_room(tmp_path: Path) -> None:
    path = tmp_path / "roomy.safetensors"
    path.write_bytes(encode_header([TensorInfo("a", "F32", (2,))], {}, length=4000) + bytes(8))
    with safe_open(path, "pt") as stock:
        assert torch.equal(stock.get_tensor("a"), torch.zeros(2))


def test_a_text_of_many_digits_is_no_number() -> None:
    text = {"hash": "7" * 5000, "n": 12, "m": -3}
    assert parse_json(json.dumps(text).encode()) == text
    with pytest.raises(ValueError, match="an integer of 4001 digits"):
        parse_json(b'{"n":' + b"7" * 4001 + b"}")


@pytest.mark.parametrize("code", [0x1F, 0x7F, 0x85, 0x2028, 0x202E, 0x2067])
def test_every_control_character_of_a_name_is_found(code: int) -> None:
    assert has_control(f"layer{chr(code)}weight")
    assert not has_control("layer é weight") and not has_control("layer weight")
