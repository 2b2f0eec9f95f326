"""A superposition and what each task makes of it: products and look-ups for rows of any tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.live.held import Held
from randes_cli.live.names import Part
from randes_cli.live.selection import gathered


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A superposition and what each task multiplies it by: λ, step, scales and signs.

    Attributes:
        down: factors of its rows by task, [T, R]; zeros for tasks that have nothing in it.
        across: factors of its columns by task, [T, C].
        tasks: the tasks that have something in it.
        alone: whether no other group has something of this tensor.
    """

    held: Held
    down: torch.Tensor
    across: torch.Tensor
    tasks: frozenset[int]
    alone: bool

    def product(self, x: torch.Tensor, index: torch.Tensor | int) -> torch.Tensor:
        """a ∘ ((x ∘ b) Sᵀ) for a weight whose rows are outputs."""
        down, across = self._sides(index, x.dim())
        return F.linear(x * across, self.held.dense(x.dtype)) * down

    def product_turned(self, x: torch.Tensor, index: torch.Tensor | int) -> torch.Tensor:
        """b ∘ ((x ∘ a) S) for a weight whose rows are inputs."""
        down, across = self._sides(index, x.dim())
        return torch.matmul(x * down, self.held.dense(x.dtype)) * across

    def _sides(self, index: torch.Tensor | int, dims: int) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(index, int):
            return self.down[index], self.across[index]
        return gathered(self.down, index, dims), gathered(self.across, index, dims)

    def delta(self, task: int, dtype: torch.dtype) -> torch.Tensor:
        """a S b of one task, [R, C]."""
        return self.down[task][:, None] * self.held.dense(dtype) * self.across[task]

    def rows(self, ids: torch.Tensor, index: torch.Tensor | int) -> torch.Tensor:
        """a[ids] · (S[ids] ∘ b): [*ids, C]. `index` has the leading dimensions of `ids`."""
        found = self.held.rows(ids, self.down.dtype)
        if isinstance(index, int):
            return self.down[index][ids][..., None] * found * self.across[index]
        spread = index.reshape(*index.shape, *[1] * (ids.dim() - index.dim()))
        return self.down[spread, ids][..., None] * found * self.across[spread]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A superposed tensor of the checkpoint in its place in the parameter."""

    part: Part
    groups: tuple[Group, ...]
    shape: tuple[int, ...]

    def add_to(self, parameter: torch.Tensor, task: int) -> None:
        """Add the delta of one task in place."""
        target = parameter[self.part.place] if self.part.place else parameter
        for group in self.groups:
            if task in group.tasks:
                delta = group.delta(task, parameter.dtype).reshape(self.shape)
                target += delta.t() if self.part.turned else delta
