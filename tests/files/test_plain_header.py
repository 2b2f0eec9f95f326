"""A header that is read by its quotes gives what JSON gives; what is taken so is sound."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.files import header, plain_header
from randes_cli.files.header import parse_header
from randes_cli.specs import ITEM_SIZE

_NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=9)
_TENSORS = st.lists(
    st.tuples(_NAMES, st.sampled_from(sorted(ITEM_SIZE)), st.lists(st.integers(0, 12), max_size=3)),
    min_size=1,
    max_size=9,
    unique_by=lambda one: one[0],
)
_METADATA = st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)


def _entries(tensors: Any, metadata: Any, order: Any) -> dict[str, Any]:
    """The object of a header; the entries need not be in the order of the data."""
    made, place = dict[str, Any](), 0
    for name, dtype, shape in tensors:
        size = ITEM_SIZE[dtype]
        for length in shape:
            size *= length
        offsets = [place, place + size]
        made[name], place = {"dtype": dtype, "shape": shape, "data_offsets": offsets}, place + size
    mixed = {name: made[name] for name in order.draw(st.permutations(sorted(made)))}
    return mixed if metadata is None else {"__metadata__": metadata, **mixed}


#: What is looked at together: every entry by itself, some, all.
_PIECES = [1, 150, 2**20]


def _plainly(text: bytes, piece: int) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_header, "_PIECE", piece)
        return header._plain(text)


@pytest.mark.parametrize("piece", _PIECES)
@given(_TENSORS, _METADATA, st.sampled_from([(",", ":"), (", ", ": ")]), st.data())
def test_both_readers_agree(
    piece: int, tensors: Any, metadata: Any, separators: Any, order: Any
) -> None:
    text = json.dumps(_entries(tensors, metadata, order), separators=separators).encode()
    slow = header._any(text)
    plain = _plainly(text + b"   ", piece)
    if plain is not None:
        assert plain[0] == slow[0]
        assert [list(column) for column in plain[1]] == [list(column) for column in slow[1]]
    # Escapes are left to JSON, and a header that is cut in a name that has the end of an entry.
    escapes = any(mark in name for name, *_ in tensors for mark in ('"', "\\", "},"))
    assert plain is not None or escapes or (metadata is not None and b"\\u" in text)


_SOUND = (
    '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    '"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}'
)
#: What is changed in it, and what becomes of it.
_BROKEN = [
    ('"b"', '"a"', "duplicate key 'a'"),
    ('"b"', '"__metadata__"', "duplicate key '__metadata__'"),
    ('"b":{', '"b":1,"c":{', "tensor 'b': not dtype, shape and data_offsets"),
    ("[24,32]", "[25,33]", "tensor 'b': its data overlap or leave a hole"),
    ("[24,32]", "[24,33]", "tensor 'b': shape, dtype and data_offsets disagree"),
    ("[24,32]", "[024,32]", "Expecting ',' delimiter"),
    ("[4]", "[04]", "Expecting ',' delimiter"),
    ("[4]", "[4,]", "Expecting value"),
    ("[4]", "[-4]", "tensor 'b': bad shape"),
    ("BF16", "BF17", "tensor 'b': dtype 'BF17' is packed or unknown"),
    ("24]},", "24]}x,", "Expecting ',' delimiter"),
    ("24]},", "24]},,", "Expecting property name"),
    ("32]}}", "32]}}}", "Extra data"),
    ("32]}}", "32]}", "Expecting ',' delimiter"),
    ('"pt"', "1", "__metadata__ is not a map of strings"),
    ('"pt"', '"\\ud800"', "lone surrogate"),
    ('"b"', '"b\\u0000"', "control characters"),
]


@pytest.mark.parametrize(("old", "new", "reason"), _BROKEN)
def test_what_is_not_sound_is_refused_by_name(old: str, new: str, reason: str) -> None:
    assert parse_header(_SOUND.encode(), file_size=8 + len(_SOUND) + 32).metadata["format"] == "pt"
    broken = _SOUND.replace(old, new, 1)
    assert broken != _SOUND
    with pytest.raises(ValueError, match=reason):
        parse_header(broken.encode())


@pytest.mark.parametrize("piece", _PIECES)
def test_a_change_of_any_byte_is_read_as_json_reads_it(piece: int) -> None:
    for place in range(len(_SOUND)):
        for byte in '{}[]",:x0 ':
            text = (_SOUND[:place] + byte + _SOUND[place + 1 :]).encode()
            plain = _plainly(text, piece)
            if plain is not None:
                slow = header._any(text)
                assert plain[0] == slow[0]
                assert [list(c) for c in plain[1]] == [list(c) for c in slow[1]]
