"""Units, which are superposed together, and pieces of a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from randes_cli.core.arrays import F32
from randes_cli.core.shuffle import layer_order
from randes_cli.core.signs import (
    SignRun,
    SignWindow,
    Window,
    many_signs,
    random_joined,
    sign_bits,
    sign_bytes,
)
from randes_cli.specs import Shuffle, Signs


@dataclass(frozen=True, slots=True)
class Rect:
    """Rows row0:row1 of columns col0:col1 of a matrix with `width` columns.

    Its elements are contiguous: it has whole rows, or a part of one.
    """

    row0: int
    row1: int
    col0: int
    col1: int
    width: int

    @property
    def rows(self) -> tuple[int, int]:
        return self.row0, self.row1

    @property
    def cols(self) -> tuple[int, int]:
        return self.col0, self.col1

    @property
    def start(self) -> int:
        """Offset of the first element in the tensor."""
        return self.row0 * self.width + self.col0

    @property
    def elements(self) -> int:
        return (self.row1 - self.row0) * (self.col1 - self.col0)

    def above(self, row: int) -> Rect | None:
        """The part in rows before `row`."""
        if row <= self.row0:
            return None
        return self if row >= self.row1 else Rect(self.row0, row, self.col0, self.col1, self.width)

    def split(self, elements: int) -> Iterator[Rect]:
        """Consecutive pieces of at most `elements` elements (whole rows where they fit)."""
        width = self.col1 - self.col0
        if width > elements:
            for row in range(self.row0, self.row1):
                for col in range(self.col0, self.col1, elements):
                    yield Rect(row, row + 1, col, min(col + elements, self.col1), self.width)
            return
        height = max(1, elements // max(1, width))
        for row in range(self.row0, self.row1, height):
            yield Rect(row, min(row + height, self.row1), self.col0, self.col1, self.width)


@dataclass(frozen=True, eq=False)
class Form:
    """What units of one shape have in common: there is one of each kind in a plan.

    `view` is the matrix that two-sided signs see, `rows` × `cols` the one that all else does.
    """

    rows: int
    cols: int
    view: tuple[int, int]
    signs: Signs
    shuffle: Shuffle

    @cached_property
    def elements(self) -> int:
        """Those of one layer."""
        return self.rows * self.cols

    @cached_property
    def signed(self) -> tuple[int, int]:
        """The matrix that the signs see."""
        return self.view if self.signs is Signs.two_sided else (self.rows, self.cols)

    @cached_property
    def flip_bytes(self) -> int:
        """Bytes of `Unit.flips` at any position."""
        return sign_bytes(self.signs, *self.signed)

    def many_signs(self, names: Sequence[str], seed: int) -> F32:
        """±1 for every element of tensors of these names of the task with a seed, a row each."""
        bits = random_joined("signs", seed, names, np.full(len(names), self.flip_bytes))
        bits = bits.reshape(len(names), -1)
        return many_signs(self.signs, bits, (self.rows, self.cols), self.view)


@dataclass(slots=True, eq=False)
class Unit:
    """What is superposed together: `names` are the base's tensors, in layer order.

    More than one name means that tasks move these layers among themselves. A unit is one of its
    plan, and equal to itself alone: there may be 100,000, each looked up again and again. Nobody
    changes one; to freeze it would take as long as to make it.
    """

    kind: str
    names: tuple[str, ...]
    form: Form

    @property
    def rows(self) -> int:
        return self.form.rows

    @property
    def cols(self) -> int:
        return self.form.cols

    @property
    def view(self) -> tuple[int, int]:
        return self.form.view

    @property
    def signs(self) -> Signs:
        return self.form.signs

    @property
    def layers(self) -> int:
        return len(self.names)

    def order(self, seed: int, index: int) -> list[int]:
        """σ of a task: which of its layers lies at each position."""
        return layer_order(
            self.form.shuffle, seed=seed, index=index, layer_kind=self.kind, layers=self.layers
        )

    def flips(self, seed: int, position: int) -> bytes:
        """The packed sign bits of the task with this seed at a position."""
        return sign_bits(self.form.signs, seed, self.names[position], *self.form.signed)

    def window(self, flips: bytes, rect: Rect, scale: float) -> Window:
        """The signs of a piece, times `scale`."""
        if self.form.signs is Signs.two_sided:
            return SignRun(flips, self.form.view, rect.start, rect.elements, scale)
        return SignWindow(self.form.signs, flips, rect.rows, rect.cols, scale)
