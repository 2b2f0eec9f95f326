"""Patterns of an adapter's configuration, matched without going back: they come from strangers.

Python's own matcher may need more steps than there are atoms. This one follows all ways at once,
from a set of places in a name to the set of places behind the next part, and counts its steps.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

_PARSER = "re._parser" if sys.version_info >= (3, 11) else "sre_parse"
_MOST_LETTERS, _MOST_STEPS = 1000, 200_000
#: How kinds of characters are written.
_KINDS = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}


@lru_cache
def parsed(text: str) -> Any:
    """A pattern's parts. Raises ValueError where it is none, or a part is not known here."""
    if len(text) > _MOST_LETTERS:
        raise ValueError(f"the pattern {text[:80]!r} is too long")
    try:
        parser: Any = import_module(_PARSER)  # private: a Python without it refuses patterns
        found = parser.parse(text)
        if found.state.flags != re.UNICODE:
            raise ValueError("a pattern with flags is not understood")
        _Walk("").ends(found, {0})  # knows all its parts
    except (re.error, RecursionError, OverflowError, ImportError) as error:
        raise ValueError(f"the pattern {text[:80]!r}: {error}") from None
    return found


def matches_end(text: str, name: str) -> bool:
    """Whether a name is what a pattern says, or ends with it behind a dot. Raises ValueError."""
    starts = {0} | {place + 1 for place, letter in enumerate(name) if letter == "."}
    return len(name) in _Walk(name).ends(parsed(text), starts)


class _Walk:
    """One name, and the steps that were taken in it."""

    def __init__(self, name: str) -> None:
        self._name, self._steps = name, 0

    def ends(self, parts: Iterable[Any], starts: set[int]) -> set[int]:
        """Where these parts, one after the other, may end that begin at these places."""
        for kind, what in parts:
            self._steps += 1 + len(starts)
            if self._steps > _MOST_STEPS:
                raise ValueError("the pattern takes too long to match")
            starts = self._part(str(kind), what, starts)
        return starts

    def _part(self, kind: str, what: Any, starts: set[int]) -> set[int]:
        if kind in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            there = {place for place in starts if place < len(self._name)}
            return {p + 1 for p in there if _is_one(kind, what, self._name[p])}
        if kind in ("AT", "BRANCH", "SUBPATTERN"):
            if kind == "AT":
                return {p for p in starts if self._is_at(str(what), p)}
            if kind == "SUBPATTERN" and (what[1] or what[2]):
                raise ValueError("a pattern with flags is not understood")
            branches = what[1] if kind == "BRANCH" else [what[-1]]
            return set().union(*(self.ends(one, starts) for one in branches))
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, parts = what
            return self._repeated(least, int(most), parts, starts)
        raise ValueError(f"a pattern with {kind.lower()} is not understood")

    def _is_at(self, what: str, place: int) -> bool:
        if what in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return place == 0
        if what in ("AT_END", "AT_END_STRING"):
            return place == len(self._name)
        raise ValueError(f"a pattern with {what.lower()} is not understood")

    def _repeated(self, least: int, most: int, parts: Any, starts: set[int]) -> set[int]:
        for _ in range(min(least, len(self._name) + 1)):
            starts = self.ends(parts, starts)
        made, count = set(starts), most - least
        while starts and count > 0:
            starts, count = self.ends(parts, starts) - made, count - 1
            made |= starts
        return made


def _is_one(kind: str, what: Any, letter: str) -> bool:
    """Whether a letter is of a kind."""
    if kind == "ANY":
        return letter != "\n"
    if kind != "IN":
        return (ord(letter) == what) is (kind == "LITERAL")
    turned = str(what[0][0]) == "NEGATE"
    return any(_is_among(str(one), of, letter) for one, of in what[turned:]) is not turned


def _is_among(kind: str, what: Any, letter: str) -> bool:
    if kind == "LITERAL":
        return bool(ord(letter) == what)
    if kind == "RANGE":
        return bool(what[0] <= ord(letter) <= what[1])
    name = str(what).removeprefix("CATEGORY_")
    found = re.fullmatch(_KINDS[name.removeprefix("NOT_")], letter) is not None
    return found is not name.startswith("NOT_")
