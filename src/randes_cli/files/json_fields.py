"""A JSON object read field by field: each error names the field (``tasks[2].seed``)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import prod
from typing import Any, TypeVar

from randes_cli.errors import BankDamaged
from randes_cli.files.header import CONTROL
from randes_cli.specs import ITEM_SIZE

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


class Fields:
    """One JSON object being read, with its path for messages."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise BankDamaged(f"manifest: {path or 'the whole'} is not an object")
        self.value: dict[str, Any] = value
        self.path = path

    def fail(self, key: str, what: str) -> BankDamaged:
        dot = "." if self.path else ""
        return BankDamaged(f"manifest: {self.path}{dot}{key} {what}")

    def get(self, key: str, kind: type[T]) -> T:
        if key not in self.value:
            raise self.fail(key, "is missing")
        found = self.value[key]
        if type(found) is not kind:
            raise self.fail(key, f"is not a {kind.__name__}")
        return found

    def line(self, key: str) -> str:
        """A string that is shown to people."""
        found = self.get(key, str)
        if CONTROL.search(found):
            raise self.fail(key, "has control characters")
        return found

    def count(self, key: str, most: int = 2**63 - 1, least: int = 0) -> int:
        found = self.get(key, int)
        if not least <= found <= most:
            raise self.fail(key, f"is {str(found)[:30]}, not between {least} and {most}")
        return found

    def choice(self, key: str, kind: type[E]) -> E:
        found = self.get(key, str)
        try:
            return kind(found)
        except ValueError:
            raise self.fail(key, f"is {found[:60]!a}, which this version does not know") from None

    def fields(self, key: str) -> Fields:
        dot = "." if self.path else ""
        return Fields(self.get(key, dict), f"{self.path}{dot}{key}")

    def map(self, key: str, check: Callable[[object], T | None]) -> dict[str, T]:
        made = {}
        for name, value in self.get(key, dict).items():
            checked = check(value)
            if checked is None:
                raise self.fail(f"{key}[{name[:100]!a}]", "is not valid")
            made[name] = checked
        return made

    def list(self, key: str, check: Callable[[object], T | None]) -> list[T]:
        made = []
        for position, value in enumerate(self.get(key, list)):
            checked = check(value)
            if checked is None:
                raise self.fail(f"{key}[{position}]", "is not valid")
            made.append(checked)
        return made


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_line(value: object) -> str | None:
    """A string that is shown to people."""
    return value if isinstance(value, str) and not CONTROL.search(value) else None


def as_shape(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 64:
        return None
    for length in value:
        if type(length) is not int or not 0 <= length < 2**63:
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


def as_pair(value: object) -> tuple[int, int] | None:
    made = as_shape(value)
    return (made[0], made[1]) if made is not None and len(made) == 2 else None


def as_name_pair(value: object) -> tuple[str, str] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    return (value[0], value[1]) if all(isinstance(part, str) for part in value) else None
