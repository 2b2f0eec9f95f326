"""Text that streams is the text of all tokens, up to the first stop."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from randes_cli.server.texts import TextReader

#: Pieces of characters, and characters; "é" and "😀" come in several tokens.
PIECES = [bytes([byte]) for byte in "aé😀 ".encode()] + [b"ab", b"ba", "é".encode(), b"\xff"]


def decode(tokens: Sequence[int]) -> str:
    return b"".join(PIECES[token] for token in tokens).decode("utf-8", "replace")


def cut(text: str, stops: Sequence[str]) -> str:
    """The slow oracle: everything before whatever stop comes first."""
    found = [text.index(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


@given(
    st.lists(st.integers(0, 3), max_size=9),
    st.lists(st.integers(0, len(PIECES) - 1), max_size=30),
    st.lists(st.text("abé", min_size=1, max_size=4), max_size=3),
)
def test_pieces_are_the_whole_up_to_the_first_stop(
    before: list[int], tokens: list[int], stops: list[str]
) -> None:
    prompt = [0, *before, 0]  # a prompt of whole characters ends where a text begins
    prompt = [0] * len(prompt) if decode(prompt).count("\ufffd") else prompt
    reader, made = TextReader(decode, prompt, stops), ""
    wanted = cut(decode(tokens), stops)
    for token in tokens:
        made += reader.push(token)
        assert wanted.startswith(made)
        if reader.stopped:
            break
    made += reader.finish()
    assert made == wanted
    assert reader.stopped == any(stop in decode(tokens) for stop in stops)
