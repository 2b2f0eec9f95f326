"""Parameters that models compute with first: joined, standardised, made of constants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.live.many import options
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states


class Joined(nn.Module):
    """As in BEiT and EVA: a bias of which the middle is not learned."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 96, bias=False)
        self.query_bias, self.value_bias = (nn.Parameter(torch.randn(32)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = torch.cat((self.query_bias, torch.zeros_like(self.value_bias), self.value_bias))
        return F.linear(x, self.qkv.weight, bias)


class Standardised(nn.Module):
    """As in NFNets and BiT: a kernel less its mean, by its deviation and a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(24, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.conv.weight
        flat = kernel.reshape(1, 24, -1)
        scaled = F.batch_norm(flat, None, None, weight=self.gain.view(-1), training=True)
        return F.conv2d(x, scaled.reshape_as(kernel), self.conv.bias, padding=1)


class Positions(nn.Module):
    """As in Swin v2: a bias that a network makes of constant coordinates, and a masked bias."""

    places: torch.Tensor
    index: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.randn(1, 3, 3, 2))
        self.register_buffer("index", torch.arange(16) % 9)
        self.mlp = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 4, bias=False))
        self.bias = nn.Parameter(torch.randn(12))
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.project = nn.Linear(4, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.mlp(self.places).view(-1, 4)
        made = table[self.index].view(4, 4, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        scores = x[:, None] * torch.clamp(self.scale, max=0.8).exp() + 16 * torch.sigmoid(made)
        bias = self.bias.clone()
        length = bias.numel() // 3
        bias[length : 2 * length].zero_()
        return F.linear(scores, self.project.weight, bias)


class Planes(nn.Module):
    """A matrix of several, in tensors whose squarest views begin with their planes, or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.many, self.few = nn.Parameter(torch.ones(16, 4, 4)), nn.Parameter(torch.ones(4, 4, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.many[1].reshape(-1) * self.few[2].sum(0)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Joined(), (5, 7, 16)),
        (Standardised(), (5, 3, 8, 8)),
        (Positions(), (5, 4, 4)),
        (Planes(), (5, 16)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_that_are_computed_with_first(
    model: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model.eval()
    bank = bank_of_states(model, tmp_path, options(groups=2))
    assert_module_answers(model, bank, torch.randn(shape))
