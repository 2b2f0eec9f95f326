"""Two sides of the same tensors beside each other: their deltas, and how they differ by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from randes_cli.core.arrays import F32, Raw
from randes_cli.core.convert import widen
from randes_cli.core.kernel import Kernel
from randes_cli.core.overlap import Overlap
from randes_cli.core.shuffle import layer_type
from randes_cli.files.source import Source, read_raw, read_values
from randes_cli.plan import Rect
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import FLOAT_DTYPES, RunOptions
from randes_cli.workers import Progress, run_chunks


@dataclass(frozen=True, slots=True)
class TypeDiff:
    """Tensors of one type that both sides have in one shape.

    Attributes:
        changed: how many differ in a value or in dtype.
        cosine: of A and B, or of their deltas where a base is given.
        norm: ‖A − B‖.
        relative: ‖A − B‖ / ‖A‖, or / ‖A − base‖ where a base is given; None where that is 0.

    The three are None where values that differ are not finite.
    """

    name: str
    tensors: int
    changed: int
    cosine: float | None
    norm: float | None
    relative: float | None


def retrieved_and_true(
    retrieval: Retrieval, base: Source | None, original: Source, kernel: Kernel, piece: Piece
) -> tuple[F32, F32]:
    """The true delta of a superposed piece, and the one that comes back."""
    name, runs = piece.tensor.name, [piece.rect]
    got = np.empty(piece.nbytes, np.uint8)
    retrieval.fill(kernel, piece, got)
    back = np.empty(piece.rect.elements, np.float32)
    widen(got, piece.tensor.dtype, back)
    true = read_values(original, name, runs)
    if base is None:
        return true, back
    zero = read_values(base, retrieval.kept_name(name), runs)
    return true - zero, back - zero


@dataclass(frozen=True, slots=True)
class _Part:
    """What was found of one chunk."""

    overlap: Overlap
    differs: bool


def type_diffs(
    a: Source,
    b: Source,
    base: Source | None,
    names: Sequence[str],
    run: RunOptions,
    progress: Progress,
) -> tuple[TypeDiff, ...]:
    """Compare tensors that both sides have in one shape, each read once; by type, most first."""
    found: dict[str, dict[int, _Part]] = {name: {} for name in names}

    def work(name: str, number: int, rect: Rect) -> int:
        one, two = (read_raw(side, name, rect.start, rect.elements) for side in (a, b))
        found[name][number] = _part(a, b, base, name, rect, (one, two))
        return len(one) + len(two)

    run_chunks(
        [a.tensors[name] for name in names],
        work,
        run,
        phase="comparing",
        progress=progress,
        total=sum(side.tensors[name].nbytes for side in (a, b) for name in names),
    )
    return _by_type({name: [parts[n] for n in sorted(parts)] for name, parts in found.items()})


def _part(
    a: Source, b: Source, base: Source | None, name: str, rect: Rect, sides: tuple[Raw, Raw]
) -> _Part:
    """Compare one chunk; where equal values are not finite there is nothing to sum."""
    dtypes = a.tensors[name].dtype, b.tensors[name].dtype
    differs = dtypes[0] != dtypes[1] or not np.array_equal(*sides)
    if not FLOAT_DTYPES.issuperset(dtypes):
        return _Part(Overlap(), differs)
    one, two = np.empty((2, rect.elements), np.float32)
    widen(sides[0], dtypes[0], one)
    widen(sides[1], dtypes[1], two)
    if base is not None:
        zero = read_values(base, name, [rect])
        with np.errstate(invalid="ignore"):
            one, two = one - zero, two - zero
    overlap = Overlap.of(one, two)
    return _Part(overlap if differs or overlap.finite else Overlap(), differs)


def _by_type(found: Mapping[str, Sequence[_Part]]) -> tuple[TypeDiff, ...]:
    types: dict[str, list[str]] = {}
    for name in found:
        types.setdefault(layer_type(name), []).append(name)
    made = []
    for kind, names in types.items():
        whole = sum((part.overlap for name in names for part in found[name]), Overlap())
        known = whole.finite
        made.append(
            TypeDiff(
                name=kind,
                tensors=len(names),
                changed=sum(any(part.differs for part in found[name]) for name in names),
                cosine=whole.cosine if known else None,
                norm=whole.distance if known else None,
                relative=whole.error if known else None,
            )
        )
    return tuple(sorted(made, key=lambda one: (-inf if one.norm is None else -one.norm, one.name)))
