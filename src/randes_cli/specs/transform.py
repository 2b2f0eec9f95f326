"""The orthogonal map of a bank, and where its base lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from randes_cli.errors import UsageError
from randes_cli.limits import LIMITS, check_line, choose


class Shuffle(str, Enum):
    """How a task's layers of one type are moved (paper 4.3 and C.2)."""

    none = "none"
    random = "random"
    shift = "shift"


class Signs(str, Enum):
    """How a task's elements are flipped (paper 4.4; `hankel` and `two_sided` are ours)."""

    none = "none"
    column = "column"
    hankel = "hankel"
    two_sided = "two-sided"


def check_pattern(what: str, text: str) -> None:
    """Raise UsageError for what is no regular expression."""
    check_line(what, text)
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{what}: not a regular expression: {error}") from None


class Rest(str, Enum):
    """What becomes of tensors outside the targets."""

    sum = "sum"
    own = "own"


class BaseStorage(str, Enum):
    """Where a bank's base lives: inside it, outside it, or nowhere (all zeros)."""

    embed = "embed"
    reference = "reference"
    zero = "zero"


PRESETS: Mapping[str, tuple[Shuffle, Signs]] = {
    "two-sided": (Shuffle.none, Signs.two_sided),
    "hankel": (Shuffle.none, Signs.hankel),
    "srsf": (Shuffle.random, Signs.column),
    "rsf": (Shuffle.none, Signs.column),
    "s": (Shuffle.random, Signs.none),
    "shift": (Shuffle.shift, Signs.none),
    "ta": (Shuffle.none, Signs.none),
}


@dataclass(frozen=True, slots=True)
class Transform:
    """The orthogonal map of a bank: shuffle, then signs, on the targets.

    `matched` are the tensors that `targets` stands for, once a base is at hand; None where all
    are, or where that is not yet known. A bank records them, so that reading one never runs a
    pattern. `exact` are the statistics and constants of the base, which are kept exactly, recorded
    likewise. `any_digits`: layer numbers may be digits of any script, as in banks of version 1,
    and not ASCII's alone. `extra` are optional fields that a bank records and this version does
    not know.
    """

    shuffle: Shuffle = Shuffle.none
    signs: Signs = Signs.two_sided
    targets: str = "all"
    every: int = 1
    rest: Rest = Rest.sum
    matched: frozenset[str] | None = None
    exact: frozenset[str] = frozenset()
    any_digits: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put(self, shuffle=choose("--shuffle", Shuffle, self.shuffle))
        put(self, signs=choose("--signs", Signs, self.signs))
        put(self, rest=choose("--rest", Rest, self.rest))
        LIMITS["every"].check("--every", self.every)
        check_line("--targets", self.targets)
        if self.matched is None and self.targets not in ("all", "attn", "mlp"):
            check_pattern("--targets", self.targets)

    @property
    def preset(self) -> str | None:
        """The preset's name, or None where the parts match none."""
        parts = (self.shuffle, self.signs)
        return next((name for name, pair in PRESETS.items() if pair == parts), None)

    @classmethod
    def from_preset(cls, name: str, **more: object) -> Transform:
        if name not in PRESETS:
            raise UsageError(f"--transform must be one of {', '.join(PRESETS)}, not {name!r}")
        shuffle, signs = PRESETS[name]
        return cls(shuffle, signs, **more)  # type: ignore[arg-type]


#: The m of shares: a superposition has one element in m.
SHARES = (1, 2, 4, 8)


def task_seed(bank: int, index: int) -> int:
    """The seed of a task. Raises UsageError where no number is left for it."""
    LIMITS["seed"].check("--seed plus a task's index", bank + index)
    return bank + index


def put(record: object, **values: object) -> None:
    """Put a checked value into a frozen record under construction."""
    for name, value in values.items():
        object.__setattr__(record, name, value)
