"""How near every task comes back, from norms and Gram matrices, all tasks at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from randes_cli.core.arrays import F64, I64


@dataclass(frozen=True, slots=True)
class Moments:
    """Of every task i, with Δ̂ its retrieval at λ = 1: three vectors of T values.

    Attributes:
        own: ‖Δ_i‖².
        dot: ⟨Δ_i, Δ̂_i⟩.
        length: ‖Δ̂_i‖² on the tensors that the task changed.
    """

    own: F64
    dot: F64
    length: F64

    @property
    def cosine(self) -> F64:
        """cos(Δ_i, Δ̂_i), −1 to 1; 1 where the task changed nothing."""
        scale = np.sqrt(self.own * np.maximum(self.length, 0.0))
        there = self.own > 0
        made = np.where(there, 0.0, 1.0)
        np.divide(self.dot, scale, out=made, where=there & (scale > 0))
        return np.clip(made, -1.0, 1.0)

    def error(self, coefficient: F64) -> F64:
        """‖λ Δ̂_i − Δ_i‖ / ‖Δ_i‖ for one λ per task; 0 where the task changed nothing."""
        squares = self.own - 2 * coefficient * self.dot + coefficient**2 * self.length
        made = np.zeros_like(self.own)
        np.divide(squares, self.own, out=made, where=self.own > 0)
        return np.sqrt(np.maximum(made, 0.0))


def moments(
    norms: F64,
    met: F64,
    cell_of: I64,
    groups: Sequence[int],
    kept: F64 | None = None,
) -> Moments:
    """Moments of every task of a bank (paper equation 6).

    `norms` is tensors × T of ‖Δ_j‖²; `met` cells × T × T Gram matrices of the transformed
    deltas; `cell_of` the cell of each tensor, −1 for none; tasks meet within their group only.
    `kept` has what share of each tensor's energy a task's sealed sum keeps (tensors × T): with
    levels that are means of their cells and the gain 1 / kept, ⟨x, Q(S)⟩ = ⟨x, S⟩ and
    ‖Q(S)‖² = ‖S‖² / kept.
    """
    changed = norms > 0
    own, dot, length = norms.sum(axis=0), np.zeros(norms.shape[1]), np.zeros(norms.shape[1])
    left = np.ones_like(norms) if kept is None else 1 / kept
    used = np.zeros((len(met), norms.shape[1]))
    known = cell_of >= 0
    if len(met):
        np.maximum.at(used, cell_of[known], changed[known].astype(np.float64))
    for group in sorted(set(groups)):
        members = np.flatnonzero(np.asarray(groups) == group)
        crossed = changed[:, members].T.astype(np.float64) @ (norms[:, members] * left[:, members])
        share = _by_cell(left[:, members[0]], cell_of, len(met))
        apart = met[:, members[:, None], members] * (1 - np.eye(len(members)))
        here = used[:, members]
        dot[members] = own[members] + (here * apart.sum(axis=2)).sum(axis=0)
        apart *= share[:, None, None]
        length[members] = crossed.sum(axis=1) + here.T @ apart.sum(axis=(1, 2))
    return Moments(own, dot, length)


def _by_cell(values: F64, cell_of: I64, cells: int) -> F64:
    """The mean of a value per tensor over each cell's tensors; 1 for a cell without any."""
    known = cell_of >= 0
    counts = np.bincount(cell_of[known], minlength=cells)
    sums = np.bincount(cell_of[known], weights=values[known], minlength=cells)
    return np.divide(sums, counts, out=np.ones(cells), where=counts > 0)
