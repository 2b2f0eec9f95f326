"""A small residual network of convolutions for the digits, beside the transformer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128)
BLOCKS, CLASSES = 2, 10


class Residual(nn.Module):
    """Two 3 × 3 convolutions with group norms, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(x)))
        result: Tensor = functional.relu(x + self.norm2(self.conv2(inner)))
        return result


class Convolutions(nn.Module):
    """Maps images (batch x 8 x 8, values in [0, 1]) to scores (batch x 10): 0.8M parameters."""

    def __init__(self) -> None:
        super().__init__()
        first, second = WIDTHS
        self.stem = nn.Conv2d(1, first, 3, padding=1)
        self.early = nn.Sequential(*(Residual(first) for _ in range(BLOCKS)))
        self.down = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.late = nn.Sequential(*(Residual(second) for _ in range(BLOCKS)))
        self.head = nn.Linear(second, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.stem(2 * images.unsqueeze(1) - 1))
        x = self.late(functional.relu(self.down(self.early(x))))
        scores: Tensor = self.head(x.mean(dim=(2, 3)))
        return scores
