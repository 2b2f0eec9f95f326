"""Columns of tensors tell the bytes of the very header and layout that records make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.files.bank.container import Container
from randes_cli.files.bank.entries import Entries, name_bytes
from randes_cli.files.bank.keys import CHECKS
from randes_cli.files.json_text import encode_header
from randes_cli.specs import ITEM_SIZE, TensorInfo

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in ("__metadata__", CHECKS)  # a header, a file has it for itself
)
_SHAPES = st.lists(st.integers(0, 2**18), max_size=3).map(tuple)  # all below 2^63 bytes
_TENSORS = st.lists(
    st.builds(TensorInfo, _NAMES, st.sampled_from(sorted(ITEM_SIZE)), _SHAPES),
    unique_by=lambda tensor: tensor.name,
    max_size=20,
)


@given(_TENSORS, st.sampled_from([{}, {"format": "randes", "name": 'a "b" é'}]))
def test_a_header_is_as_long_as_its_columns_say(
    tensors: list[TensorInfo], metadata: dict[str, str]
) -> None:
    encoded = encode_header(tensors, metadata)
    assert Entries.of(tensors).header_bytes(metadata) == len(encoded)


_SMALL = st.builds(
    TensorInfo, _NAMES, st.sampled_from(sorted(ITEM_SIZE)), st.tuples(st.integers(0, 40))
)


@given(st.lists(_SMALL, unique_by=lambda tensor: tensor.name, max_size=20))
def test_a_file_is_as_long_as_its_columns_say(tensors: list[TensorInfo]) -> None:
    file = Container()
    for tensor in tensors:
        file.place(tensor)
    file.place_checks()
    assert Entries.of(tensors).layout_bytes() == file.size


@pytest.mark.parametrize("name", ["plain", 'quo"te', "back\\slash", "é", "\x00", "\x7f", "a b"])
def test_a_name_is_as_long_as_in_json(name: str) -> None:
    length = len(encode_header([TensorInfo(name, "U8", (1,))], {}).rstrip())
    assert length == len(encode_header([TensorInfo("", "U8", (1,))], {}).rstrip()) + name_bytes(
        name
    )
