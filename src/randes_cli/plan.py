"""Pure planning: shapes in, units, chunks and strips out.

A *unit* is what is superposed together: one tensor, or the layers of one type where they are
shuffled. A *chunk* is the piece of a tensor that one digest covers; it depends on the shape
alone. A *strip* is the piece of a chunk that is computed at once; it depends on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from math import prod
from typing import NamedTuple

from randes_cli.core.columns import columns
from randes_cli.core.roles import exact_roles
from randes_cli.core.share import Share
from randes_cli.core.shuffle import group_shapes
from randes_cli.core.unit import Form
from randes_cli.core.unit import Rect as Rect  # noqa: PLC0414 - for all who plan
from randes_cli.core.unit import Unit as Unit  # noqa: PLC0414
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


def chunks(rows: int, cols: int) -> list[Rect]:
    """The pieces of a rows × cols tensor that have a digest each, in order.

    Whole rows, as many as 2^20 elements hold; a longer row is cut every 2^20 elements.
    """
    return list(Rect(0, rows, 0, cols, cols).split(CHUNK_ELEMENTS)) if rows * cols else []


@lru_cache(maxsize=64)
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


def plan_units(base: Tensors | Iterable[TensorInfo], transform: Transform) -> list[Unit]:
    """The units of a base, in its order; see `unit_table`."""
    return list(dict.fromkeys(unit_table(base, transform).values()))


def unit_table(base: Tensors | Iterable[TensorInfo], transform: Transform) -> dict[str, Unit]:
    """The unit of every superposed tensor: a function of names, shapes and transform alone.

    Of the targets of one type every `transform.every`-th layer is transformed (paper C.2).
    """
    tensors = base if isinstance(base, Mapping) else {tensor.name: tensor for tensor in base}
    shapes = _superposed(tensors, transform.exact)
    matched = transform.matched
    if matched is None and transform.targets != "all":
        matched = frozenset(name for name in shapes if is_target(name, transform.targets))
    targets = shapes if matched is None else {n: s for n, s in shapes.items() if n in matched}
    forms: dict[tuple[tuple[int, ...], Signs, Shuffle], Form] = {}

    def form(name: str, signs: Signs, shuffle: Shuffle) -> Form:
        shape = shapes[name]
        if (shape, signs, shuffle) not in forms:
            rows, cols = TensorInfo("", "U8", shape).matrix
            forms[shape, signs, shuffle] = Form(rows, cols, _squarest(shape), signs, shuffle)
        return forms[shape, signs, shuffle]

    units: dict[str, Unit] = {}
    moves = transform.every > 1 or transform.shuffle is not Shuffle.none
    found = group_shapes(targets, any_digits=transform.any_digits, ordered=moves)
    for kind, names in found.items():
        chosen = names[:: transform.every]
        if transform.shuffle is Shuffle.none or len(chosen) == 1:
            alone = form(names[0], transform.signs, Shuffle.none)
            units.update((name, Unit(kind, (name,), alone)) for name in chosen)
        else:
            alike = form(names[0], transform.signs, transform.shuffle)
            units.update(dict.fromkeys(chosen, Unit(kind, tuple(chosen), alike)))
    if transform.rest is Rest.sum and len(units) < len(shapes):
        left = [name for name in shapes if name not in units]
        units.update((n, Unit(n, (n,), form(n, Signs.none, Shuffle.none))) for n in left)
    return {name: units[name] for name in shapes if name in units}


def _superposed(tensors: Tensors, exact: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that may be superposed, in their order."""
    found = columns(tensors)
    shapes = [kind.shape for kind in found.kinds]
    there = found.where(superposable)
    pairs = zip(found.names, map(shapes.__getitem__, found.kind_of.tolist()), strict=True)
    made = dict(pairs if there.all() else compress(pairs, there.tolist()))
    for name in exact:
        made.pop(name, None)
    return made


def tensor_bytes(tensors: Iterable[TensorInfo]) -> int:
    """Bytes that the tensors' data take together."""
    return sum(tensor.nbytes for tensor in tensors)


class Span(NamedTuple):
    """Chunks of a tensor: all from the first to before the last (None: to its end)."""

    first: int = 0
    last: int | None = None

    def holds(self, chunk: int) -> bool:
        return self.first <= chunk and (self.last is None or chunk < self.last)


#: All chunks.
WHOLE = Span()
