"""The one training loop of the text beds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: AdamW, the rate on one cycle.

    Attributes:
        warmup: share of the steps in which the rate rises.
        half: multiply in bfloat16 (weights and their updates stay in float32).
    """

    steps: int
    rate: float
    batch: int
    warmup: float = 0.1
    decay: float = 0.0
    seed: int = 0
    half: bool = False


def fit(model: nn.Module, loss: Callable[[int], Tensor], recipe: Recipe) -> None:
    """Train the parameters of a model that want a gradient; `loss(step)` is of one batch."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        wanted, lr=recipe.rate, weight_decay=recipe.decay, betas=(0.9, 0.98), fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.rate,
        total_steps=recipe.steps,
        pct_start=recipe.warmup,
        cycle_momentum=False,
    )
    for step in range(recipe.steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss(step))
        nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        schedule.step()


def shuffled_batches(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Row numbers of one batch after another, in shuffled epochs without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(batch)
