"""How near every task of a bank comes back, from norms and Gram matrices: the one formula.

A superposition holds rounded deltas, S = Σ_j O_j q_j, and task i comes back as Δ̂_i = O_i⁻¹ S. Since
O is orthogonal, ⟨Δ_i, Δ̂_i⟩ = ⟨Δ_i, q_i⟩ + Σ_j≠i ⟨O_i Δ_i, O_j q_j⟩ and ‖Δ̂_i‖² = ‖S‖², whatever
the task (paper equation 6). The first term and ‖q_j‖² are known of every tensor; the products of
different tasks, which are near zero where the transform decorrelates, from Gram matrices of the
deltas Δ: q_j is taken as ⟨Δ_j, q_j⟩ / ‖Δ_j‖² of Δ_j, and rounding noise beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

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
        left: the share of each tensor's energy that the levels of a sealed group keep, by group
            (a group that is not there keeps all). With levels that are means of their cells and
            the gain 1 / left, ⟨x, Q(S)⟩ = ⟨x, S⟩ and ‖Q(S)‖² = ‖S‖² / left.
        others: ‖q‖² by tensor of deltas that no task answers for any more, by group.
    """

    whole: F64
    kept: F64
    rounded: F64
    changed: Bools
    groups: Sequence[int]
    left: Mapping[int, F64] = field(default_factory=dict)
    others: Mapping[int, F64] = field(default_factory=dict)

    def rows(self, chosen: I64) -> Lengths:
        """The same of some tensors."""
        return replace(
            self,
            whole=self.whole[chosen],
            kept=self.kept[chosen],
            rounded=self.rounded[chosen],
            changed=self.changed[chosen],
            left={group: values[chosen] for group, values in self.left.items()},
            others={group: values[chosen] for group, values in self.others.items()},
        )

    def members(self, group: int) -> I64:
        """The tasks of a group."""
        return np.flatnonzero(np.asarray(self.groups, np.int64) == group)

    def sum_energy(self, group: int, members: I64) -> F64:
        """‖S‖² by tensor, as a sealed group has it too, were all deltas orthogonal."""
        energy: F64 = self.rounded[:, members].sum(axis=1)
        if group in self.others:
            energy = energy + self.others[group]
        return energy / self.left[group] if group in self.left else energy


@dataclass(frozen=True)
class Grams:
    """T × T Gram matrices of the transformed deltas, one a cell of tensors.

    `cell_of` is the cell of each tensor, −1 for none.
    """

    met: F64
    cell_of: I64

    @classmethod
    def none(cls, tensors: int) -> Grams:
        """Nothing known: all deltas count as orthogonal."""
        return cls(np.zeros((0, 0, 0)), np.full(tensors, -1, np.int64))

    def rows(self, chosen: I64) -> Grams:
        """The same of some tensors: a cell that covers others too does not tell of them."""
        rest = np.delete(self.cell_of, chosen)
        cell_of = self.cell_of[chosen]
        return Grams(self.met, np.where(np.isin(cell_of, rest), -1, cell_of))


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


def moments(lengths: Lengths, grams: Grams | None = None) -> Moments:
    """Moments of every task: T² at most for each cell, T for each tensor."""
    tasks = len(lengths.groups)
    own, kept, dot, length = np.zeros((4, tasks))
    changed = lengths.changed
    own += np.where(changed, lengths.whole, 0.0).sum(axis=0)
    kept += np.where(changed, lengths.kept, 0.0).sum(axis=0)
    for group in sorted(set(lengths.groups)):
        members = lengths.members(group)
        energy = lengths.sum_energy(group, members)
        inside = changed[:, members].astype(np.float64)
        dot[members] = kept[members]
        length[members] = energy @ inside
        if grams is not None and len(grams.cell_of) and len(members) > 1:
            crossed, longer = _crossed(lengths, grams, group, members, energy, inside)
            dot[members] += crossed
            length[members] += longer
    return Moments(own, kept, dot, length, np.asarray(changed.any(axis=0)))


def _crossed(
    lengths: Lengths, grams: Grams, group: int, members: I64, energy: F64, inside: F64
) -> tuple[F64, F64]:
    """What the products of different deltas add to the dots and the lengths of a group's tasks.

    Of a cell of several tensors a task that left some as they were meets the others' products in
    the share of the energy that lies in those it changed.
    """
    dots, longer = np.zeros((2, len(members)))
    left = lengths.left.get(group)
    order = np.argsort(grams.cell_of, kind="stable")
    cells, starts = np.unique(grams.cell_of[order], return_index=True)
    for cell, rows in zip(cells.tolist(), np.split(order, starts[1:]), strict=True):
        if cell < 0:
            continue
        whole = lengths.whole[np.ix_(rows, members)].sum(axis=0)
        part = lengths.kept[np.ix_(rows, members)].sum(axis=0)
        scale = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
        apart = _apart(grams.met[cell], members, whole)
        seen = inside[rows]
        dots += np.where(seen.any(axis=0), apart @ scale, 0.0)
        total = float(energy[rows].sum())
        share = energy[rows] @ seen / total if total > 0 else seen.mean(axis=0)
        gain = 1.0 if left is None else float((1 / left[rows]).mean())
        longer += share * (gain * float(scale @ apart @ scale))
    return dots, longer


def _apart(met: F64, members: I64, whole: F64) -> F64:
    """The products of different deltas, none beyond what their lengths allow (Cauchy–Schwarz)."""
    everyone = len(members) == len(met)
    apart = met.copy() if everyone else met[np.ix_(members, members)]
    np.fill_diagonal(apart, 0.0)
    norms = np.sqrt(whole)
    most = np.outer(norms, norms)
    return np.clip(apart, -most, most, out=apart)


def task_cosine(lengths: Lengths, task: int) -> float:
    """The cosine of one task without Gram matrices, as `moments` has it: T for each tensor."""
    group = lengths.groups[task]
    there = lengths.changed[:, task]
    if not there.any():
        return 1.0
    energy = lengths.sum_energy(group, lengths.members(group))[there].sum()
    scale = np.sqrt(lengths.whole[there, task].sum() * energy)
    return float(np.clip(lengths.kept[there, task].sum() / scale, -1, 1)) if scale > 0 else 0.0
