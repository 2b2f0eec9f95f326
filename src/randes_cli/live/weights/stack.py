"""The groups of one weight together, as a kernel reads them: each once, whatever the rows ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from randes_cli.live.batch.selection import Selection, Slots
from randes_cli.live.weights import blocks
from randes_cli.live.weights.group import Group

#: Rows up to which products are bound by reading; with more, codes are unpacked once (prefill).
MOST_ROWS = 64


def kernels_for(device: torch.device) -> bool:
    """Whether Triton kernels run there."""
    return device.type == "cuda" and find_spec("triton") is not None


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Groups whose superpositions are stored alike.

    Attributes:
        stored: [G, bytes] packed codes, or [G, R, ⌈C/m⌉] integers; `Group.held` are views of it.
        across: factors of columns by group and task, [G, T, C].
        down: factors of rows, [G, T, R].
        scales: what a stored number is worth in each group, float32 [G].
        residues: of the columns that residues of rows meet, int32 [G, m].
    """

    groups: tuple[Group, ...]
    stored: torch.Tensor
    across: torch.Tensor
    down: torch.Tensor
    scales: torch.Tensor
    residues: torch.Tensor

    @property
    def bits(self) -> int:
        return self.groups[0].held.bits

    @property
    def every(self) -> int:
        return self.groups[0].held.every

    def linear(
        self, x: torch.Tensor, base: torch.Tensor, selection: Selection
    ) -> torch.Tensor | None:
        """x Wᵀ for each row's task; None where that is not for a kernel."""
        count = x.shape[:-1].numel()
        shared = x.shape[0] == 1 and selection.rows > 1
        if shared or count > MOST_ROWS or count % len(selection.host):
            return None
        groups = tuple(group.tasks for group in self.groups)
        slots = selection.slots(count, groups, x.device)
        flat = x.reshape(count, -1)
        if not len(slots.rows):
            return torch.nn.functional.linear(x, base)
        made: torch.Tensor = mixed_linear(
            flat, base, self.stored, self.across, self.down, self.scales, self.residues,
            slots.rows, slots.groups, slots.tasks, slots.starts, slots.places, slots.longest,
            self.bits, self.every,
        )  # fmt: skip
        return made.reshape(*x.shape[:-1], -1)


@torch.library.custom_op("randes_cli::mixed_linear", mutates_args=())
def mixed_linear(
    x: torch.Tensor,
    base: torch.Tensor,
    stored: torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor,
    scales: torch.Tensor,
    residues: torch.Tensor,
    rows: torch.Tensor,
    groups: torch.Tensor,
    tasks: torch.Tensor,
    starts: torch.Tensor,
    places: torch.Tensor,
    longest: int,
    bits: int,
    every: int,
) -> torch.Tensor:
    """x W₀ᵀ, and for each slot (a row that a group has) a ∘ ((x ∘ b) Sᵀ) added to its row."""
    from randes_cli.live.kernels import launch as kernels

    slots = Slots(rows, groups, tasks, starts, places, longest)
    return kernels.mixed_product(
        x, base, stored, across, down, scales, residues, slots, bits=bits, every=every
    )


@mixed_linear.register_fake
def _shape(x: torch.Tensor, base: torch.Tensor, *_: object) -> torch.Tensor:
    return x.new_empty(len(x), len(base))


def stacked(groups: Sequence[Group], base: torch.Tensor) -> Stack | None:
    """The groups of a weight as one stack; None where no kernel reads them so."""
    first = groups[0].held if groups else None
    if first is None or first.dense or not kernels_for(base.device):
        return None
    from randes_cli.live.kernels import launch as kernels

    forms = {(g.held.bits, g.held.every, g.held.stored.dtype) for g in groups}
    matrix = first.view == (base.shape[0], base[0].numel())
    if not (len(forms) == 1 and matrix and kernels.fits(first.view[1], first.every, first.bits)):
        return None
    stored = torch.stack([group.held.stored for group in groups])
    down = torch.stack([group.down for group in groups])
    across = torch.stack([group.across for group in groups])
    views = tuple(
        replace(g, held=replace(g.held, stored=stored[n]), down=down[n], across=across[n])
        for n, g in enumerate(groups)
    )
    worth = [1.0 if g.held.bits else 2.0**-g.held.exponent for g in groups]
    residues = [blocks.partners(first.every, g.held.group) for g in groups]
    return Stack(
        views, stored, across, down,
        torch.tensor(worth, dtype=torch.float32, device=base.device),
        torch.tensor(residues, dtype=torch.int32, device=base.device),
    )  # fmt: skip
