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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.core.prediction.crossing import Grams, crossed
from randes_cli.core.prediction.lengths import Lengths

#: The largest relative error that is told: of a delta whose very length is below every grid.
MOST_ERROR = 1e9


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
    """The same by tensor and task, tensors × T; zero where a task changed nothing.

    Never to be written to: what is known of lengths may be part of it.
    """

    def at(self, coefficients: Sequence[float]) -> Prediction:
        """What comes back with these λ, one a task: no delta at all where that is 0."""
        there = np.asarray(coefficients) != 0
        if there.all():
            return self
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
    """The prediction of every tensor of every task. Gram matrices are looked at once, in order."""
    dot, length = np.zeros((2, *lengths.whole.shape))
    groups = {group: lengths.members(group) for group in sorted(set(lengths.groups))}
    met = [members for members in groups.values() if len(members) > 1]
    crossings = iter(() if grams is None else crossed(lengths, grams, met))
    for group, members in groups.items():
        dots = lengths.of("kept", members)
        longer: F64 | float = 0.0
        if grams is not None and len(members) > 1:
            more, longer = next(crossings)
            dots = dots + more
        kept, energy = lengths.read(group, members, longer)
        dots = dots * kept
        dot[:, members] = lengths.named(dots, members)
        whole = np.broadcast_to(energy[:, None], dots.shape)
        length[:, members] = lengths.named(whole, members)
    changed, own, of = lengths.changed, lengths.whole, lengths.kept
    if not changed.all():
        own, of = np.where(changed, own, 0.0), np.where(changed, of, 0.0)
        dot[~changed] = length[~changed] = 0.0
    return Prediction(own, of, dot, length, changed)


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
