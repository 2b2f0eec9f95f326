"""How near every task of a bank comes back, from norms and Gram matrices: the one formula.

A superposition holds rounded deltas, S = Σ_j O_j q_j, and task i comes back as Δ̂_i = O_i⁻¹ S. Since
O is orthogonal, ⟨Δ_i, Δ̂_i⟩ = ⟨Δ_i, q_i⟩ + Σ_j≠i ⟨O_i Δ_i, O_j q_j⟩ and ‖Δ̂_i‖² = ‖S‖², whatever
the task (paper equation 6). Where layers are shuffled this holds at each position, at which every
task has another layer. ⟨Δ_i, q_i⟩ and ‖q_j‖² are known of every tensor. The products of different
tasks, which are near zero where the transform decorrelates, come from Gram matrices of the deltas:
a pair has the same cosine in all tensors of a cell, and q_j is ⟨Δ_j, q_j⟩ / ‖Δ_j‖² of Δ_j, with
rounding noise beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools, firsts
from randes_cli.core.cut import Cut

T = TypeVar("T")

#: Numbers of Gram matrices that are looked at together.
_ROOM = 2**18
#: What is left of an energy when it counts as none.
_CANCELLED = 1e-12
#: The largest relative error that is told: of a delta whose very length is below every grid.
MOST_ERROR = 1e9


@dataclass(frozen=True)
class Lengths:
    """Every delta of a bank on every tensor: arrays of tensors × T.

    Attributes:
        whole: ‖Δ‖² before rounding.
        kept: ⟨Δ, q⟩, q being the rounded delta.
        rounded: ‖q‖².
        changed: where a task's bytes differ from the base's.
        groups: each task's group; tasks meet within their group only.
        order: the tensor that a task has at each position; None where nothing is shuffled.
        cuts: what becomes of the sums of groups that are sealed or have a share.
        tails: `core.tails.tails` of every delta, 2 × tensors × T; None where nobody knows.
        others: ‖q‖² by tensor of deltas that no task answers for any more, by group.
    """

    whole: F64
    kept: F64
    rounded: F64
    changed: Bools
    groups: Sequence[int]
    order: I64 | None = None
    cuts: Mapping[int, Cut] = field(default_factory=dict)
    tails: F64 | None = None
    others: Mapping[int, F64] = field(default_factory=dict)
    _known: dict[int, tuple[F64, F64]] = field(default_factory=dict, init=False, compare=False)
    _found: dict[object, Any] = field(default_factory=dict, init=False, compare=False)

    def once(self, find: Callable[[Lengths], T]) -> T:
        """What a function finds, asked for the first time."""
        if find not in self._found:
            self._found[find] = find(self)
        found: T = self._found[find]
        return found

    def members(self, group: int) -> I64:
        return np.flatnonzero(np.asarray(self.groups, np.int64) == group)

    def placed(self, values: F64, tasks: I64) -> F64:
        """What is known of tensors, at the positions where these tasks have them."""
        chosen = values[:, tasks]
        return chosen if self.order is None else np.take_along_axis(chosen, self.order[:, tasks], 0)

    def named(self, values: F64, tasks: I64) -> F64:
        """The reverse: what is known of positions, of the tensors that these tasks have there."""
        if self.order is None:
            return values
        made = np.empty_like(values)
        np.put_along_axis(made, self.order[:, tasks], values, 0)
        return made

    def sum_energy(self, group: int, members: I64) -> F64:
        """‖S‖² of a dense S at each position, were all deltas orthogonal."""
        energy: F64 = self.placed(self.rounded, members).sum(axis=1)
        return energy + self.others.get(group, 0.0)

    def read(self, group: int, members: I64, crossed: F64 | float = 0.0) -> tuple[F64, F64]:
        """⟨x, Q(S)⟩ / ⟨x, S⟩ of every delta x of a group, at its positions, and ‖Q(S)‖² there.

        `crossed` is what products of different deltas add to ‖S‖². Never write to what is returned.
        """
        if not isinstance(crossed, float):
            return self._read(group, members, crossed)
        if group not in self._known:
            self._known[group] = self._read(group, members, crossed)
        return self._known[group]

    def _read(self, group: int, members: I64, crossed: F64 | float) -> tuple[F64, F64]:
        whole, cut = _added(self.sum_energy(group, members), crossed), self.cuts.get(group)
        if cut is None:
            return np.ones((len(whole), len(members))), whole
        tails = None if self.tails is None else [self.placed(t, members) for t in self.tails]
        return cut.read(self.placed(self.rounded, members), tails, whole)

    def tell(self, group: int, kept: F64, length: F64) -> None:
        """What `read` returns for a group where nothing is crossed, worked out before."""
        self._known[group] = kept, length

    def every(self, group: int) -> F64 | float:
        """The m of each tensor in a group that stores one element in m."""
        return self.cuts[group].share if group in self.cuts else 1.0


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


@dataclass(frozen=True, slots=True)
class Moments:
    """Of every task i, with Δ̂ its retrieval at λ = 1: vectors of T values.

    Attributes:
        own: ‖Δ_i‖².
        kept: ⟨Δ_i, q_i⟩, what rounding leaves of it.
        dot: ⟨Δ_i, Δ̂_i⟩.
        length: ‖Δ̂_i‖² on the tensors that the task changed.
        changed: whether it changed any.
    """

    own: F64
    kept: F64
    dot: F64
    length: F64
    changed: Bools

    @property
    def cosine(self) -> F64:
        """cos(Δ_i, Δ̂_i), −1 to 1; 1 where the task changed nothing, 0 where nothing is left."""
        scale = np.sqrt(self.own * np.maximum(self.length, 0.0))
        made = np.where(self.changed, 0.0, 1.0)
        np.divide(self.dot, scale, out=made, where=self.changed & (scale > 0))
        return np.clip(made, -1.0, 1.0)

    def error(self, coefficient: F64) -> F64:
        """‖λ Δ̂_i − Δ_i‖ / ‖Δ_i‖ for one λ per task; 0 where the task changed nothing."""
        squares = self.own - 2 * coefficient * self.dot + coefficient**2 * self.length
        lost = np.where(coefficient * np.sqrt(np.maximum(self.length, 0.0)) > 0, MOST_ERROR, 1.0)
        made = np.where(self.changed, lost**2, 0.0)
        np.divide(squares, self.own, out=made, where=self.own > 0)
        return np.clip(np.sqrt(np.maximum(made, 0.0)), 0.0, MOST_ERROR)


@dataclass(frozen=True)
class Prediction(Moments):
    """The same by tensor and task, tensors × T; zero where a task changed nothing."""

    def at(self, coefficients: Sequence[float]) -> Prediction:
        """What comes back with these λ, one a task: no delta at all where that is 0."""
        there = np.asarray(coefficients) != 0
        return replace(self, dot=self.dot * there, length=self.length * there)

    def over(self, rows: I64 | slice = slice(None)) -> Moments:
        """The moments of every task over some tensors."""
        return Moments(
            self.own[rows].sum(axis=0),
            self.kept[rows].sum(axis=0),
            self.dot[rows].sum(axis=0),
            self.length[rows].sum(axis=0),
            np.asarray(self.changed[rows].any(axis=0)),
        )


def predict(lengths: Lengths, grams: Grams | None = None) -> Prediction:
    """The prediction of every tensor of every task."""
    dot, length = np.zeros((2, *lengths.whole.shape))
    for group in sorted(set(lengths.groups)):
        members = lengths.members(group)
        dots = lengths.placed(lengths.kept, members)
        longer: F64 | float = 0.0
        if grams is not None and len(members) > 1:
            crossed, longer = _crossed(lengths, grams, members)
            dots = dots + crossed
        kept, energy = lengths.read(group, members, longer)
        dots = dots * kept
        dot[:, members] = lengths.named(dots, members)
        whole = np.broadcast_to(energy[:, None], dots.shape)
        length[:, members] = lengths.named(whole, members)
    changed = lengths.changed
    own, kept = np.where(changed, lengths.whole, 0.0), np.where(changed, lengths.kept, 0.0)
    dot[~changed] = length[~changed] = 0.0
    return Prediction(own, kept, dot, length, changed)


def _added(energy: F64, crossed: F64 | float) -> F64:
    """Their sum, nothing where they cancel but for the rounding of these very numbers."""
    made = energy + crossed
    made[made < _CANCELLED * energy] = 0.0
    return made


def _crossed(lengths: Lengths, grams: Grams, members: I64) -> tuple[F64, F64]:
    """What the products of different deltas add, at each position: to each dot, and to ‖S‖²."""
    whole = lengths.placed(lengths.whole, members)
    norms, kept = np.sqrt(whole), lengths.placed(lengths.kept, members)
    weights = np.divide(kept, norms, out=np.zeros_like(kept), where=norms > 0)
    dots = np.zeros_like(norms)
    for cells, rows in _by_cell(grams.cell_of, _ROOM // max(1, len(members)) ** 2):
        cosines = _pair_cosines(grams.met[cells], members, norms[rows])
        dots[rows] = weights[rows] @ cosines
    return norms * dots, (weights * dots).sum(axis=1)


def _by_cell(cell_of: I64, most: int) -> Iterator[tuple[I64, I64]]:
    """Cells, and the tensors of each: cells × tensors. Of cells of one tensor `most` together."""
    order = np.argsort(cell_of, kind="stable")
    order = order[cell_of[order] >= 0]
    first = firsts(cell_of[order])
    cells, counts = cell_of[order[first]], np.diff(np.append(first, len(order)))
    alone = np.flatnonzero(counts == 1)
    for start in range(0, len(alone), max(1, most)):
        at = alone[start : start + max(1, most)]
        yield cells[at], order[first[at], None]
    for at in np.flatnonzero(counts > 1).tolist():
        yield cells[at : at + 1], order[None, first[at] : first[at] + counts[at]]


def _pair_cosines(met: F64, members: I64, norms: F64) -> F64:
    """cos(O_i Δ_i, O_j Δ_j) of the pairs of different tasks, cells × T × T.

    `met` are their Gram matrices, `norms` cells × tensors × T.
    """
    made = np.ascontiguousarray(met[:, members[:, None], members])
    most = norms.transpose(0, 2, 1) @ norms
    np.divide(made, most, out=made, where=most > 0)
    made[most <= 0] = 0.0
    made[:, np.arange(len(members)), np.arange(len(members))] = 0.0
    return np.clip(made, -1.0, 1.0, out=made)


def moments(lengths: Lengths, grams: Grams | None = None) -> Moments:
    """Moments of every task over all tensors."""
    return predict(lengths, grams).over()


def task_cosine(lengths: Lengths, task: int) -> float:
    """The cosine of one task without Gram matrices, as `moments` has it: T for each tensor."""
    group, there = lengths.groups[task], lengths.changed[:, task]
    if not there.any():
        return 1.0
    members = lengths.members(group)
    kept, energy = lengths.read(group, members)
    one = np.array([task])
    kept = lengths.named(kept[:, members == task], one)[:, 0]
    length = lengths.named(energy[:, None], one)[there, 0].sum()
    dot = (lengths.kept[:, task] * kept)[there].sum()
    scale = np.sqrt(lengths.whole[there, task].sum() * length)
    return float(np.clip(dot / scale, -1, 1)) if scale > 0 else 0.0
