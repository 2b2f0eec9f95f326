"""A superposition and what each task makes of it: products and look-ups for rows of any tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from randes_cli.live.batch.selection import gathered
from randes_cli.live.weights.held import Held


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

    def some(self, rows: Sequence[int]) -> Group:
        """Some of its rows, as a group of their own."""
        down = self.down[:, torch.tensor(rows, device=self.down.device)]
        return replace(self, held=self.held.some(rows, self.down.dtype), down=down)

    def product(
        self, x: torch.Tensor, index: torch.Tensor | int, *, turned: bool = False
    ) -> torch.Tensor:
        """a ∘ ((x ∘ b) Sᵀ) for a weight whose rows are outputs; b ∘ ((x ∘ a) S) for one `turned`,
        whose rows are inputs."""
        first, last = (self.down, self.across) if turned else (self.across, self.down)
        if isinstance(index, int):
            before, after = first[index], last[index]
        else:
            before, after = gathered(first, index, x.dim()), gathered(last, index, x.dim())
        return self.held.product(x * before, turned=turned) * after

    def delta(self, task: int, dtype: torch.dtype) -> torch.Tensor:
        """a S b of one task, [R, C]."""
        return self.down[task][:, None] * self.held.matrix(dtype) * self.across[task]

    @property
    def nbytes(self) -> int:
        """Of what tasks have of their own."""
        return self.down.nbytes + self.across.nbytes

    def rows(self, ids: torch.Tensor, index: torch.Tensor | int) -> torch.Tensor:
        """a[ids] · (S[ids] ∘ b): [*ids, C]. `index` has the leading dimensions of `ids`."""
        found = self.held.rows(ids, self.down.dtype)
        if isinstance(index, int):
            return self.down[index][ids][..., None] * found * self.across[index]
        spread = index.reshape(*index.shape, *[1] * (ids.dim() - index.dim()))
        return self.down[spread, ids][..., None] * found * self.across[spread]


@dataclass(frozen=True, slots=True, eq=False)
class Patterned:
    """A superposition whose signs do not factor: a task's matrix is made for every use.

    Attributes:
        matrix: (rows, columns) that the signs are of.
        signs: ±1 by task, [T, rows + columns − 1] by i + j (`hankel`), or [T, columns] by j.
        units: what an element is worth by task, [T]: λ and the step.
        scales: of rows and columns of `held.view` in a sealed superposition, else None.
    """

    held: Held
    matrix: tuple[int, int]
    signs: torch.Tensor
    hankel: bool
    units: torch.Tensor
    scales: tuple[torch.Tensor, torch.Tensor] | None
    tasks: frozenset[int]

    def delta(self, task: int, dtype: torch.dtype) -> torch.Tensor:
        """The delta of one task, [rows, columns]."""
        values = self.held.matrix(dtype)
        if self.scales is not None:
            values = values * self.scales[0][:, None] * self.scales[1]
        signs = self.signs[task].as_strided(self.matrix, (int(self.hankel), 1)).to(dtype)
        return values.reshape(self.matrix) * signs * self.units[task]

    def rows(self, ids: torch.Tensor, index: torch.Tensor | int) -> torch.Tensor:
        """Some rows of the tasks' deltas: [*ids, C]. `index` has the leading dimensions of `ids`.

        Known where `held.view` is `matrix`.
        """
        found = self.held.rows(ids, self.units.dtype)
        if self.scales is not None:
            found = found * self.scales[0][ids][..., None] * self.scales[1]
        spread = torch.as_tensor(index, device=ids.device)
        spread = spread.reshape(*spread.shape, *[1] * (ids.dim() - spread.dim()))
        first = ids[..., None] if self.hankel else torch.zeros_like(ids)[..., None]
        places = first + torch.arange(self.matrix[1], device=ids.device)
        return found * self.signs[spread[..., None], places] * self.units[spread][..., None]

    @property
    def nbytes(self) -> int:
        """Of what tasks have of their own."""
        return self.signs.nbytes + self.units.nbytes
