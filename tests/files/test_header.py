"""The header reader; what it refuses, and in which words, is in tests/hostile/test_headers.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from randes_cli.files.checkpoint.checkpoint import open_checkpoint
from randes_cli.files.header import parse_header, parse_json
from randes_cli.files.json_text import encode_header
from randes_cli.limits import CONTROL, LONGEST_NAME, has_control
from randes_cli.specs import ITEM_SIZE, TensorInfo


@pytest.mark.parametrize("length", [640, 1152, 0x0380, 0x10280])
def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    tensor = TensorInfo("a", "F32", (2,))
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_header([tensor], {"k": "v"}, length=length) + bytes(8))
    with open_checkpoint(str(path)) as opened:
        assert dict(opened.tensors) == {"a": tensor}


def test_a_header_in_use_vouches_for_no_file_of_another_size_and_no_other_bytes() -> None:
    data = encode_header([TensorInfo("n" * LONGEST_NAME, "F32", (2,))], {})[8:].rstrip()
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
