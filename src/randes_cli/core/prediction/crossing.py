"""What the products of different deltas add to a prediction, from Gram matrices by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from randes_cli.core.arrays import F64, I64, firsts
from randes_cli.core.prediction.lengths import Lengths

#: Numbers of Gram matrices that are looked at together.
_ROOM = 2**18


class Matrices(Protocol):
    """T × T matrices, one a cell: an array, or what reads them as they are looked at."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, cells: Any, /) -> Any:
        """Those of some cells."""


@dataclass(frozen=True)
class Grams:
    """T × T Gram matrices of the transformed deltas, one a cell of tensors.

    `cell_of` is the cell of each tensor, −1 for none.
    """

    met: Matrices
    cell_of: I64

    @classmethod
    def none(cls, tensors: int) -> Grams:
        """Nothing known: all deltas count as orthogonal."""
        return cls(np.zeros((0, 0, 0)), np.full(tensors, -1, np.int64))


def crossed(lengths: Lengths, grams: Grams, groups: Sequence[I64]) -> Iterator[tuple[F64, F64]]:
    """What the products of different deltas add, at each position: to each dot, and to ‖S‖².

    Of one group (the numbers of its tasks) after the other.
    """
    each = [_Crossing.of(lengths, members) for members in groups]
    most = max((len(members) for members in groups), default=1)
    for cells, rows in _by_cell(grams.cell_of, _ROOM // most**2) if groups else ():
        met = grams.met[cells]
        for crossing in each:
            crossing.add(met, rows)
    for crossing in each:
        yield crossing.norms * crossing.dots, (crossing.weights * crossing.dots).sum(axis=1)


class _Crossing(NamedTuple):
    """The products of a group's deltas, as they are added up: arrays of positions × tasks."""

    members: I64
    norms: F64
    weights: F64
    dots: F64

    @classmethod
    def of(cls, lengths: Lengths, members: I64) -> _Crossing:
        norms, kept = np.sqrt(lengths.of("whole", members)), lengths.of("kept", members)
        weights = np.divide(kept, norms, out=np.zeros_like(kept), where=norms > 0)
        return cls(members, norms, weights, np.zeros_like(norms))

    def add(self, met: F64, rows: I64) -> None:
        """Look at the Gram matrices of some cells, and at the tensors of each."""
        cosines = _pair_cosines(met, self.members, self.norms[rows])
        self.dots[rows] = self.weights[rows] @ cosines


def _by_cell(cell_of: I64, most: int) -> Iterator[tuple[I64, I64]]:
    """Cells in order, and the tensors of each: cells × tensors. Up to `most` of one tensor come
    together."""
    order = np.argsort(cell_of, kind="stable")
    order = order[cell_of[order] >= 0]
    first = firsts(cell_of[order])
    cells, counts = cell_of[order[first]], np.diff(np.append(first, len(order)))
    at = 0
    while at < len(cells):
        count = int(counts[at])
        end = at + 1
        if count == 1:
            others = np.flatnonzero(counts[at : at + max(1, most)] > 1)
            end = at + int(others[0]) if len(others) else min(at + max(1, most), len(cells))
        yield cells[at:end], order[first[at:end, None] + np.arange(count)]
        at = end


def _pair_cosines(met: F64, members: I64, norms: F64) -> F64:
    """cos(O_i Δ_i, O_j Δ_j) of the pairs of different tasks, cells × T × T.

    `met` are their Gram matrices, `norms` cells × tensors × T.
    """
    some = met if len(members) == met.shape[1] else met[:, members[:, None], members]
    across = norms.transpose(0, 2, 1)
    most = across * norms if norms.shape[1] == 1 else across @ norms
    made: F64 = np.divide(some, most, out=np.zeros(some.shape), where=most > 0)
    made[:, np.arange(len(members)), np.arange(len(members))] = 0.0
    np.clip(made, -1.0, 1.0, out=made)
    return made
