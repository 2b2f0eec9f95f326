"""Random superpositions of a 7B Llama's shapes: `gpu.py` runs and times them."""

from __future__ import annotations

from typing import Any

import torch

from randes_cli.live.weights import stack
from randes_cli.live.weights.group import Group
from randes_cli.live.weights.held import Held

LLAMA = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
#: For a rehearsal.
TINY = [(32, 256), (24, 512)]


def shapes(device: str) -> list[tuple[int, int]]:
    """The matrices of a layer."""
    return LLAMA if device == "cuda" else TINY


def inputs(rows: int, bases: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    """By columns of the matrices that take them."""
    widths = sorted({base.shape[1] for base in bases})
    return {n: torch.randn(rows, n, device=bases[0].device).to(bases[0]) for n in widths}


def group(
    shape: tuple[int, int],
    bits: int,
    tasks: range,
    total: int,
    base: torch.Tensor,
    every: int = 1,
    number: int = 0,
) -> Group:
    """A superposition of random codes, which `tasks` of `total` have something in."""
    rows, columns = shape[0], shape[1] // every
    if bits == 16:
        stored = torch.randint(-999, 999, (rows, columns), dtype=torch.int16, device=base.device)
    else:
        size = rows * columns * bits // 8
        stored = torch.randint(0, 256, (size,), dtype=torch.uint8, device=base.device)
    exponent, width = (10, 0) if bits == 16 else (0, bits)
    held = Held(stored, shape, exponent, width, every, number, False)
    down, across = (_signs(total, size, base) for size in shape)
    return Group(held, 0.02 * down, across, frozenset(tasks), len(tasks) == total)


def _signs(*shape_and_base: Any) -> torch.Tensor:
    *shape, base = shape_and_base
    return (2 * torch.randint(0, 2, shape, device=base.device) - 1).to(base.dtype)


def weights(shapes: list[tuple[int, int]], device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    return [0.02 * torch.randn(shape, device=device, dtype=dtype) for shape in shapes]


def stacks(
    bases: list[torch.Tensor], bits: int, rows: int, groups: int, every: int = 1
) -> list[stack.Stack]:
    """A stack for each matrix, whose rows are tasks of their own, dealt to the groups in turn."""
    made = []
    for base in bases:
        shape = (base.shape[0], base.shape[1])
        size = rows // groups
        parts = [
            group(shape, bits, range(g * size, (g + 1) * size), rows, base, every, g)
            for g in range(groups)
        ]
        found = stack.stacked(parts, base)
        assert found is not None
        made.append(found)
    return made


def plain(x: torch.Tensor, base: torch.Tensor, groups: tuple[Group, ...]) -> torch.Tensor:
    """A step by torch's operations, in float32."""
    made = x.float() @ base.float().T
    for one in groups:
        at = torch.tensor(sorted(one.tasks), device=x.device)
        matrix = one.held.matrix(torch.float32)
        part = (x[at] * one.across[at]).float() @ matrix.T
        made[at] += part * one.down[at].float()
    return made
