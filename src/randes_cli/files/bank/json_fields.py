"""A JSON object read field by field: each error names the field (``tasks[2].seed``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import Enum
from itertools import chain
from math import prod
from typing import Any, TypeVar, cast

from randes_cli.core.grid import LIMIT
from randes_cli.errors import BankDamaged
from randes_cli.limits import (
    LIMITS,
    LONGEST_TEXT,
    MOST_COEFFICIENT,
    MOST_SCORE,
    has_control,
    is_name,
)
from randes_cli.specs import ITEM_SIZE, Kind

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=Enum)


class Fields:
    """One JSON object being read, with its path for messages.

    Its methods raise BankDamaged naming the field that is missing, of another type or out of
    its limits. `rest` has what nobody asked for.
    """

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise BankDamaged(f"manifest: {path or 'the whole'} is not an object")
        self.value: dict[str, Any] = value
        self.path = path
        self._seen: set[str] = set()

    def fail(self, key: str, what: str) -> BankDamaged:
        dot = "." if self.path else ""
        return BankDamaged(f"manifest: {self.path}{dot}{key} {what}")

    def get(self, key: str, kind: type[T]) -> T:
        """The value of a field that must be there, of exactly this type."""
        self._seen.add(key)
        if key not in self.value:
            raise self.fail(key, "is missing")
        found = self.value[key]
        if type(found) is not kind:
            raise self.fail(key, f"is no {kind.__name__}")
        return found

    def optional(self, key: str, check: Callable[[object], T | None], default: D) -> T | D:
        """The value of a field that may be absent; `check` gives None for a bad one."""
        self._seen.add(key)
        if key not in self.value:
            return default
        found = check(self.value[key])
        if found is None:
            raise self.fail(key, "is not valid")
        return found

    def rest(self) -> dict[str, Any]:
        """The fields that nobody has asked for: optional ones of another version."""
        return {key: value for key, value in self.value.items() if key not in self._seen}

    def line(self, key: str) -> str:
        """A string that is shown to people."""
        found = self.get(key, str)
        if has_control(found):
            raise self.fail(key, "has control characters")
        if len(found) > LONGEST_TEXT:
            raise self.fail(key, f"has {len(found)} characters")
        return found

    def limited(self, key: str, limit: str = "") -> int:
        """A whole number within its limit: that of its name, or of another."""
        least, most = LIMITS[limit or key]
        found = self.get(key, int)
        if not least <= found <= most:
            raise self.fail(key, f"is {str(found)[:30]}, not between {least} and {most}")
        return found

    def number(self, key: str, most: float) -> float:
        """A number of at most this magnitude."""
        self._seen.add(key)
        found = as_number(self.value.get(key), most)
        if found is None:
            raise self.fail(key, f"is out of range (-{most:g} to {most:g})")
        return found

    def choice(self, key: str, kind: type[E]) -> E:
        found = self.get(key, str)
        try:
            return kind(found)
        except ValueError:
            raise self.fail(key, f"is {found[:60]!r}, which this version does not know") from None

    def fields(self, key: str) -> Fields:
        dot = "." if self.path else ""
        return Fields(self.get(key, dict), f"{self.path}{dot}{key}")

    def optional_map(self, key: str, check: Callable[[object], T | None]) -> dict[str, T]:
        """As `map`; empty where the field is absent."""
        return self.map(key, check) if key in self.value else {}

    def optional_list(self, key: str, check: Callable[[object], T | None]) -> list[T]:
        """As `list`; empty where the field is absent."""
        return self.list(key, check) if key in self.value else []

    def map(self, key: str, check: Callable[[object], T | None]) -> dict[str, T]:
        """An object whose values `check` takes; it gives None for a bad one."""
        found = self.get(key, dict)
        made = dict(zip(found, map(check, found.values()), strict=True))
        if None in made.values():
            name = next(name for name, checked in made.items() if checked is None)
            raise self.fail(f"{key}[{name[:100]!r}]", "is not valid")
        return cast("dict[str, T]", made)

    def whole_map(self, key: str, check: Callable[[object], int | None]) -> dict[str, int]:
        """`map` of whole numbers from one to another: of many alike each is looked at once."""
        found = self.get(key, dict)
        if not _are(int, found.values()) or None in map(check, {*found.values()}):
            return self.map(key, check)
        return found

    def list(self, key: str, check: Callable[[object], T | None]) -> list[T]:
        made = []
        for position, value in enumerate(self.get(key, list)):
            checked = check(value)
            if checked is None:
                raise self.fail(f"{key}[{position}]", "is not valid")
            made.append(checked)
        return made


_COUNT_END = 2**63
_STEP = LIMITS["step"]


def as_number(value: object, most: float) -> float | None:
    """A number of at most this magnitude: JSON knows no difference between 1 and 1.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= most:
        return None
    return float(value)


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_line(value: object) -> str | None:
    """A string that is shown to people."""
    if not isinstance(value, str) or has_control(value) or len(value) > LONGEST_TEXT:
        return None
    return value


def as_shape(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 64:
        return None
    for length in value:
        if type(length) is not int or not 0 <= length < _COUNT_END:
            return None
    return tuple(value)


def as_dtype(value: object) -> str | None:
    return value if isinstance(value, str) and value in ITEM_SIZE else None


def as_typed_shape(value: object) -> tuple[str, tuple[int, ...]] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    dtype, shape = as_dtype(value[0]), as_shape(value[1])
    if dtype is None or shape is None or prod(shape) * ITEM_SIZE[dtype] >= 2**63:
        return None
    return dtype, shape


def as_typed_shapes(values: Collection[Any]) -> list[Kind] | None:
    """`as_typed_shape` of many, of which each kind is looked at once; None where one is bad."""
    made = _pairs(values, int)  # a look at what numbers are: 1.0 and true are equal to 1
    good = all(as_typed_shape([dtype, [*shape]]) for dtype, shape in dict.fromkeys(made or ()))
    return made if good else None


def _pairs(values: Collection[Any], kind: type[T]) -> list[tuple[str, tuple[T, ...]]] | None:
    """Pairs of a text and a list of some kind, at one look; None where one is none."""
    if not _are(list, values) or not {2}.issuperset(map(len, values)):
        return None
    texts, lists = ([value[part] for value in values] for part in (0, 1))
    if not (_are(str, texts) and _are(list, lists) and _are(kind, chain.from_iterable(lists))):
        return None
    return list(zip(texts, map(tuple, lists), strict=True))


def _are(kind: type, values: Iterable[object]) -> bool:
    return {kind}.issuperset(map(type, values))


def as_pair(value: object) -> tuple[int, int] | None:
    made = as_shape(value)
    return (made[0], made[1]) if made is not None and len(made) == 2 else None


def as_name_pair(value: object) -> tuple[str, str] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    good = all(isinstance(part, str) and is_name(part) for part in value)
    return (value[0], value[1]) if good else None


def as_exponent(value: object) -> int | None:
    return value if type(value) is int and _STEP.least <= value <= _STEP.most else None


def as_width(value: object) -> int | None:
    return value if type(value) is int and value in LIMIT else None


def as_cell(value: object) -> tuple[str, tuple[str, ...]] | None:
    made = as_cells([value])
    return made[0] if made else None


def as_cells(values: Collection[Any]) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    """`as_cell` of many at one look; None where one is bad."""
    made = _pairs(values, str)
    return None if made is None else tuple(made)


def as_curve(value: object) -> tuple[tuple[float, float], ...] | None:
    if not isinstance(value, list) or not value:
        return None
    made = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            return None
        at, score = as_number(pair[0], MOST_COEFFICIENT), as_number(pair[1], MOST_SCORE)
        if at is None or score is None:
            return None
        made.append((at, score))
    return tuple(made)
