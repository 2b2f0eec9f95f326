"""What is added to products: each row's own."""

from __future__ import annotations

from typing import Any

import torch

from randes_cli.live.batch.selection import Selection
from randes_cli.live.parameters.mixed_parameter import rows
from randes_cli.live.parameters.spread import Spread, align


def with_bias(made: torch.Tensor, bias: Any, selection: Selection, dims: int = 0) -> torch.Tensor:
    """A product and its bias, which so many dimensions are behind."""
    if bias is None:
        return made
    found = rows(bias, selection)
    if isinstance(found, Spread):
        return made + align(lengthened(found, dims), made)
    side: torch.Tensor = found.reshape(-1, *[1] * dims) if dims else found
    return made + side


def lengthened(spread: Spread, dims: int) -> Spread:
    """With dimensions of 1 behind it."""
    return Spread(spread.data.reshape(*spread.data.shape, *[1] * dims), spread.lead)
