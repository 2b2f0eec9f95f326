"""What options may say and manifests may hold: one table, for the writer and the reader."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from enum import Enum
from math import inf
from typing import NamedTuple, TypeAlias, TypeVar

from randes_cli.errors import UsageError

#: A path, or the id of a model on the Hub, as callers give it.
StrPath: TypeAlias = str | os.PathLike[str]
E = TypeVar("E", bound=Enum)


def _shown(value: object) -> str:
    """A value in a message; Python does not write whole numbers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return "a number of hundreds of digits"
    return str(value)[:60]


class Limit(NamedTuple):
    """The least and the most of a whole number."""

    least: int
    most: int

    def holds(self, value: object) -> bool:
        """Whether a value is a whole number (no bool, no float) within the limit."""
        return type(value) is int and self.least <= value <= self.most

    def check(self, option: str, value: object) -> None:
        """Raise UsageError naming the option unless the limit holds `value`."""
        if not self.holds(value):
            whole = "" if type(value) is int else "a whole number "
            raise UsageError(
                f"{option} must be {whole}between {self.least} and {self.most}, not {_shown(value)}"
            )


#: Whole numbers, by option or field.
LIMITS: Mapping[str, Limit] = {
    # Every language's JSON has the integers up to here.
    "seed": Limit(0, 2**53 - 1),
    "seed of version 1": Limit(0, 2**64 - 1),
    "index": Limit(0, 2**31 - 1),
    "next_index": Limit(0, 2**31),
    "groups": Limit(1, 2**20),
    "group": Limit(0, 2**20 - 1),
    "capacity": Limit(1, 2**31),
    "every": Limit(1, 2**63 - 1),
    "step": Limit(-126, 100),
    "older_than": Limit(0, 10**6),
}
#: Bytes of the longest header, which is the limit of the safetensors format itself, and of the
#: longest manifest: ten times that of 100,000 tensors and 20 tasks.
MOST_HEADER = 100_000_000
MOST_MANIFEST = 2**30
#: Tasks of a bank that superposes nothing, where no table of the file grows with their pairs.
MOST_APART = 2**10
#: Largest magnitude of λ, and of a score.
MOST_COEFFICIENT = 1e6
MOST_SCORE = 1e100
#: Longest wait, in seconds: a year.
MOST_SECONDS = 366 * 86400.0
#: Largest magnitude of a statistic: float32 values, squared and summed, stay far below.
MOST_STATISTIC = 1e150
#: Characters of the longest name of a tensor, and of the longest text that is shown.
LONGEST_NAME = 4096
LONGEST_TEXT = 2**16
#: Characters that would rewrite a terminal or hide a name.
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")


#: A number of bytes, with its unit.
_SIZE = r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?"


def parse_size(text: str) -> int:
    """Bytes of ``5GB``, ``500MiB`` or ``1000000``. Raises UsageError."""
    found = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    size = 0.0
    if found:
        number, unit, binary = found.groups()
        power = " KMGT".index(unit.upper() or " ")
        size = float(number) * (1024 if binary else 1000) ** power
    if not 1 <= size < inf:
        raise UsageError(f"size {text[:60]!r}: write it as 5GB, 500MiB or a number of bytes")
    return int(size)


def choose(option: str, kind: type[E], value: object) -> E:
    """The member of an enumeration that a value names. Raises UsageError naming the option."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise UsageError(f"{option} must be one of {known}, not {_shown(value)!r}") from None


def check_number(option: str, value: object, most: float) -> None:
    """Raise UsageError unless `value` is a number of at most this magnitude."""
    if type(value) not in (int, float) or not abs(value) <= most:  # type: ignore[arg-type]
        raise UsageError(
            f"{option} must be a number from {-most:g} to {most:g}, not {_shown(value)}"
        )


def as_source(value: StrPath) -> str:
    """What a caller named, as text. Raises UsageError where it is no path.

    A leading ~ is the home folder: shells leave it as it is behind a ``NAME=``, Python everywhere.
    """
    try:
        text = os.fspath(value)
        os.fsencode(text)
    except (TypeError, UnicodeEncodeError):
        text = ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"name a path or a Hub id, not {_shown(value)!r}")
    if text.startswith("~") and not os.path.lexists(text):
        return os.path.expanduser(text)  # noqa: PTH111 - a path may be an address, too
    return text


def sources_by_task(value: Mapping[str, StrPath] | None) -> Mapping[str, StrPath]:
    """Checkpoints that a caller named, by task. Raises UsageError for what is no table of them."""
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"name checkpoints by task, {{task: path}}, not {_shown(value)!r}")
    return value or {}


def check_line(option: str, text: object) -> None:
    """Raise UsageError unless `text` is one that a manifest may hold and a terminal may show."""
    if not isinstance(text, str) or len(text) > LONGEST_TEXT or CONTROL.search(text):
        raise UsageError(f"{option}: {str(text)[:60]!r} has control characters or is too long")
    if not is_text(text):
        raise UsageError(f"{option}: {text[:60]!r} is no text")


def is_text(text: str) -> bool:
    """Whether a string can stand in JSON: no half characters, as of file names of odd bytes."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def has_control(text: str) -> bool:
    """Whether a text has characters of `CONTROL`; plain ASCII is told at once."""
    return not (text.isascii() and text.isprintable()) and bool(CONTROL.search(text))


def is_name(text: str) -> bool:
    """Whether a text may name a tensor, in a checkpoint or a manifest."""
    return len(text) <= LONGEST_NAME and not has_control(text) and is_text(text)


def strange_name(names: Collection[str]) -> str | None:
    """The first that may name no tensor; of plain ones none is looked at by itself."""
    whole = "".join(names)
    if whole.isascii() and whole.isprintable() and max(map(len, names), default=0) <= LONGEST_NAME:
        return None
    return next((name for name in names if not is_name(name)), None)
