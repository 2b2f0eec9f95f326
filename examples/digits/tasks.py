"""Eight tasks made from the same handwritten digits, and their training and test sets.

Four tasks ask for the digit and change the picture; four change the question. All of them
share one 10-way output: a task with fewer classes uses the first outputs only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional

SPLIT_SEED = 0
VIEW_SEED = 1
TEST_FRACTION = 0.3

LOOPS = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 2, 1])  # in 0, 1, ..., 9
PRIME = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1, 0, 0])


@dataclass(frozen=True)
class Examples:
    """Images (n x 8 x 8, float32 in [0, 1]) and their integer labels (n)."""

    images: Tensor
    labels: Tensor


View = Callable[[Examples, torch.Generator], Examples]


def plain(digits: Examples, _: torch.Generator) -> Examples:
    """The digit, as it is: what the base is trained on."""
    return digits


def rotated(digits: Examples, _: torch.Generator) -> Examples:
    """The digit of an image turned by a quarter."""
    return Examples(digits.images.rot90(1, dims=(1, 2)), digits.labels)


def mirrored(digits: Examples, _: torch.Generator) -> Examples:
    """The digit of an image flipped left to right."""
    return Examples(digits.images.flip(2), digits.labels)


def negative(digits: Examples, _: torch.Generator) -> Examples:
    """The digit of an image with black and white exchanged."""
    return Examples(1 - digits.images, digits.labels)


def checkered(digits: Examples, _: torch.Generator) -> Examples:
    """The digit of an image with black and white exchanged in every second pixel."""
    pixels = torch.arange(digits.images.shape[-1])
    odd = (pixels[:, None] + pixels) % 2 == 1
    return Examples(torch.where(odd, 1 - digits.images, digits.images), digits.labels)


def parity(digits: Examples, _: torch.Generator) -> Examples:
    """0 for an even digit, 1 for an odd one."""
    return Examples(digits.images, digits.labels % 2)


def loops(digits: Examples, _: torch.Generator) -> Examples:
    """How many closed loops the digit has; a handwritten 4 is taken to be open."""
    return Examples(digits.images, LOOPS[digits.labels])


def prime(digits: Examples, _: torch.Generator) -> Examples:
    """1 for a prime digit, 0 for another."""
    return Examples(digits.images, PRIME[digits.labels])


def quadrant(digits: Examples, generator: torch.Generator) -> Examples:
    """Which quarter of the image a digit of half the size lies in."""
    places = torch.randint(4, (len(digits.labels),), generator=generator)
    small = functional.avg_pool2d(digits.images, 2)
    images = torch.zeros_like(digits.images)
    for place in range(4):
        row, column = 4 * (place // 2), 4 * (place % 2)
        images[places == place, row : row + 4, column : column + 4] = small[places == place]
    return Examples(images, places)


TASKS: dict[str, View] = {
    view.__name__: view
    for view in (rotated, mirrored, negative, checkered, parity, loops, prime, quadrant)
}


@cache
def digits(*, held_out: bool) -> Examples:
    """The training or the held-out part of scikit-learn's 1797 digits, the same for every task."""
    bunch = load_digits()
    parts = train_test_split(
        bunch.images / 16,
        bunch.target,
        test_size=TEST_FRACTION,
        stratify=bunch.target,
        random_state=SPLIT_SEED,
    )
    images, labels = parts[int(held_out)], parts[2 + int(held_out)]
    return Examples(torch.tensor(images, dtype=torch.float32), torch.tensor(labels))


def evaluation_set(view: View) -> Examples:
    """The held-out digits as a task sees them; the same at every call."""
    return view(digits(held_out=True), torch.Generator().manual_seed(VIEW_SEED))
