"""Pure planning: shapes in, units, chunks and strips out.

A *unit* is what is superposed together: one tensor, or the layers of one type where they are
shuffled. A *chunk* is the piece of a tensor that one digest covers; it depends on the shape
alone. A *strip* is the piece of a chunk that is computed at once; it depends on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress
from math import prod

from randes_cli.core.columns import columns
from randes_cli.core.roles import exact_roles
from randes_cli.core.share import Share
from randes_cli.core.shuffle import group_by_type, layer_order
from randes_cli.core.signs import SignRun, SignWindow, Window, sign_bits, sign_bytes
from randes_cli.errors import UsageError
from randes_cli.specs import (
    FLOAT_DTYPES,
    Rest,
    Shuffle,
    Signs,
    TensorInfo,
    Tensors,
    Transform,
    once,
)

#: Elements of one chunk, the piece of a tensor that has a digest of its own.
CHUNK_ELEMENTS = 2**20
#: (elements, runs) of the sample of a tensor that its step is chosen on, and of the one that
#: Gram matrices sum over.
STEP_SAMPLE = (2**16, 16)
GRAM_SAMPLE = (2**14, 4)


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


def chunks(rows: int, cols: int) -> list[Rect]:
    """The pieces of a rows × cols tensor that have a digest each, in order.

    Whole rows, as many as 2^20 elements hold; a longer row is cut every 2^20 elements.
    """
    return list(Rect(0, rows, 0, cols, cols).split(CHUNK_ELEMENTS)) if rows * cols else []


@lru_cache(maxsize=8)
def chunk_grid(rows: int, cols: int) -> tuple[Rect, ...]:
    """The same, for who asks again and again for one of them."""
    return tuple(chunks(rows, cols))


def sample_runs(rows: int, cols: int, sample: tuple[int, int]) -> list[Rect]:
    """A fixed sample of a rows × cols tensor: evenly spaced runs of whole rows.

    `sample` is (elements in all, number of runs); a smaller tensor is its own sample, a row
    longer than a run is cut short.
    """
    elements, most = sample
    if rows * cols <= elements:
        return [Rect(0, rows, 0, cols, cols)] if rows * cols else []
    length = elements if rows == 1 else elements // most
    height = max(1, length // cols)
    runs = min(most, rows // height)
    starts = (run * (rows - height) // max(1, runs - 1) for run in range(runs))
    return [Rect(start, start + height, 0, min(cols, length), cols) for start in starts]


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """What is superposed together: `names` are the base's tensors, in layer order.

    More than one name means that tasks move these layers among themselves. `view` is the matrix
    that two-sided signs see, `rows` × `cols` the one that all else does. A unit is one of its plan,
    and equal to itself alone: there may be 100,000, each looked up again and again.
    """

    kind: str
    names: tuple[str, ...]
    rows: int
    cols: int
    view: tuple[int, int]
    signs: Signs
    shuffle: Shuffle

    @property
    def layers(self) -> int:
        return len(self.names)

    def order(self, seed: int, index: int) -> list[int]:
        """σ of a task: which of its layers lies at each position."""
        return layer_order(
            self.shuffle, seed=seed, index=index, layer_kind=self.kind, layers=self.layers
        )

    @property
    def flip_bytes(self) -> int:
        """Bytes of `flips` at any position."""
        rows, cols = self.view if self.signs is Signs.two_sided else (self.rows, self.cols)
        return sign_bytes(self.signs, rows, cols)

    def flips(self, seed: int, position: int) -> bytes:
        """The packed sign bits of the task with this seed at a position."""
        rows, cols = self.view if self.signs is Signs.two_sided else (self.rows, self.cols)
        return sign_bits(self.signs, seed, self.names[position], rows, cols)

    def window(self, flips: bytes, rect: Rect, scale: float) -> Window:
        """The signs of a piece, times `scale`."""
        if self.signs is Signs.two_sided:
            return SignRun(flips, self.view, rect.start, rect.elements, scale)
        return SignWindow(self.signs, flips, rect.rows, rect.cols, scale)


_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(
    r"mlp|ffn|feed_?forward|dense|intermediate|experts?\b|moe|(^|\.)fc\d?\b|(^|\.)w[123]\b",
    re.IGNORECASE,
)


def is_target(name: str, targets: str) -> bool:
    """Whether a tensor is transformed under `targets`: all, attn, mlp or a regular expression."""
    if targets == "all":
        return True
    attention = bool(_ATTENTION.search(name))
    if targets in ("attn", "mlp") and "norm" in name.lower():
        return False
    if targets == "attn":
        return attention
    if targets == "mlp":
        return not attention and bool(_MLP.search(name))
    return bool(re.search(targets, name))


def choose_exact(base: Tensors, transform: Transform, pattern: str | None = None) -> Transform:
    """The transform that leaves a base's statistics and constants as they are.

    And the tensors that it leaves already, or that `pattern` finds in their names. Raises
    UsageError where it finds none.
    """
    named = set(compress(base, columns(base).where(superposable).tolist()))
    found = {name for name in (*once(exact_roles, base), *transform.exact) if name in named}
    if pattern is not None:
        asked = {name for name in named if re.search(pattern, name)}
        if not asked:
            raise UsageError(f"--exact {pattern!r}: no tensor of the base has such a name")
        found |= asked
    return replace(transform, exact=frozenset(found))


def choose_targets(base: Iterable[TensorInfo], transform: Transform) -> Transform:
    """The transform with the names that its targets stand for in a base."""
    if transform.targets == "all" or transform.matched is not None:
        return transform
    exact = transform.exact
    names = (tensor.name for tensor in base if superposable(tensor) and tensor.name not in exact)
    found = frozenset(name for name in names if is_target(name, transform.targets))
    return replace(transform, matched=found)


def superposable(tensor: TensorInfo) -> bool:
    """Floating-point and more than one element: integers and scalars are always exact."""
    return tensor.dtype in FLOAT_DTYPES and tensor.elements > 1


@lru_cache
def _squarest(shape: tuple[int, ...]) -> tuple[int, int]:
    """Models have many tensors of few shapes."""
    if len(shape) < 2:
        return 1, prod(shape)
    views = [(prod(shape[:cut]), prod(shape[cut:])) for cut in range(1, len(shape))]
    return min(reversed(views), key=sum)


def seal_matrix(tensor: TensorInfo) -> tuple[int, int]:
    """(rows, columns) of a tensor's squarest view: that of scales and of two-sided signs."""
    return _squarest(tensor.shape)


def sealable(tensor: TensorInfo) -> bool:
    """Whether its scales take at most one bit an element; vectors and thin matrices stay live."""
    return tensor.dtype in FLOAT_DTYPES and _takes_scales(tensor.shape, 1)


@lru_cache(maxsize=1024)
def _takes_scales(shape: tuple[int, ...], every: int) -> bool:
    """Whether those of one element in `every` take at most one bit of each of these."""
    rows, cols = _squarest(shape)
    return len(shape) > 1 and 1 < rows * cols >= 16 * every * (rows + cols)


def share_of(tensor: TensorInfo, group: int, shares: Mapping[int, int]) -> Share:
    """Which elements of a tensor a group's superposition has; `shares` has the m of groups.

    All of them (m = 1) where even the scales of a share would take more than a bit for each of
    its elements: in vectors, thin and small matrices.
    """
    rows, cols = seal_matrix(tensor)
    every = shares.get(group, 1)
    return Share(rows, cols, every if _takes_scales(tensor.shape, every) else 1, group)


def plan_units(base: Iterable[TensorInfo], transform: Transform) -> list[Unit]:
    """The units of a base, in its order; see `unit_table`."""
    return list(dict.fromkeys(unit_table(base, transform).values()))


def unit_table(base: Iterable[TensorInfo], transform: Transform) -> dict[str, Unit]:
    """The unit of every superposed tensor: a function of names, shapes and transform alone.

    Of the targets of one type every `transform.every`-th layer is transformed (paper C.2).
    """
    exact = transform.exact
    tensors = {t.name: t for t in base if superposable(t) and t.name not in exact}
    matched = choose_targets(tensors.values(), transform).matched
    targets = [t for t in tensors.values() if matched is None or t.name in matched]
    units: dict[str, Unit] = {}

    def unit(kind: str, names: Iterable[str], signs: Signs, shuffle: Shuffle) -> None:
        members = tuple(names)
        rows, cols = tensors[members[0]].matrix
        view = seal_matrix(tensors[members[0]])
        made = Unit(kind, members, rows, cols, view, signs, shuffle)
        units.update(dict.fromkeys(members, made))

    moves = transform.every > 1 or transform.shuffle is not Shuffle.none
    found = group_by_type(targets, any_digits=transform.any_digits, ordered=moves)
    for kind, names in found.items():
        chosen = names[:: transform.every]
        if transform.shuffle is Shuffle.none or len(chosen) == 1:
            for name in chosen:
                unit(kind, [name], transform.signs, Shuffle.none)
        else:
            unit(kind, chosen, transform.signs, transform.shuffle)
    if transform.rest is Rest.sum:
        for name in tensors:
            if name not in units:
                unit(name, [name], Signs.none, Shuffle.none)
    return {name: units[name] for name in tensors if name in units}


def tensor_bytes(tensors: Iterable[TensorInfo]) -> int:
    """Bytes that the tensors' data take together."""
    return sum(tensor.nbytes for tensor in tensors)
