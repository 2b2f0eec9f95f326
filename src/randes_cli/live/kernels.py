"""What Triton computes: products of a mixed batch with codes as they are stored, and a swap.

Imported where Triton is; `TRITON_INTERPRET=1` runs them without a GPU. Row i of a stored matrix
has the columns that its residue's partner has (`blocks`); with m = 1 these are all.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import triton
from triton.runtime.errors import OutOfResources

from randes_cli.core.levels import levels
from randes_cli.live import triton_kernels

#: Codes that are unpacked together, by bits (0: integers), and the bytes that they lie in.
PER = {0: 1, 1: 8, 2: 4, 3: 8, 4: 2, 8: 1}
UNIT = {0: 1, 1: 1, 2: 1, 3: 3, 4: 1, 8: 1}


@lru_cache(maxsize=32)
def level_table(bits: int, device: torch.device) -> torch.Tensor:
    """The levels of codes, in float32."""
    values = levels(bits) if bits else [0.0]
    return torch.tensor([float(v) for v in values], dtype=torch.float32, device=device)


def fits(columns: int, every: int, bits: int) -> bool:
    """Whether each row of a stored matrix is whole units of bytes."""
    return -(-columns // every) % PER[bits] == 0


def block_sizes(bits: int, itemsize: int) -> tuple[int, int, int]:
    """Rows and columns of W₀ and units of codes at once: what shared memory has room for."""
    return 32, 256 // itemsize, max(16, min(64, 512 // (PER[bits] * itemsize)))


#: Stages of loads ahead that a form of a kernel has room for, where these are not the most.
_STAGES: dict[object, int] = {}


def launch(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *given: Any, **form: Any
) -> None:
    """Run a kernel on the device of its tensors, with as many stages as its memory allows."""
    key = kernel, device, given[0].dtype, tuple(form.items())
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for stages in range(_STAGES.get(key, 3), 0, -1):
            try:
                kernel[grid](*given, num_stages=stages, **form)
            except OutOfResources:
                if stages == 1:
                    raise
                _STAGES[key] = stages - 1
            else:
                return


def dealt(inputs: torch.Tensor, every: int, bits: int) -> torch.Tensor:
    """Inputs [n, C] in the order that codes are met in: [m, per, n, units]."""
    missing = -inputs.shape[1] % every
    padded = torch.nn.functional.pad(inputs, (0, missing)) if missing else inputs
    by_residue = padded.reshape(len(inputs), -1, PER[bits], every)
    return by_residue.permute(3, 2, 0, 1).contiguous()


def mixed_products(
    x: torch.Tensor,
    base: torch.Tensor,
    inputs: torch.Tensor,
    starts: torch.Tensor,
    tasks: torch.Tensor,
    stored: torch.Tensor,
    down: torch.Tensor,
    scales: torch.Tensor,
    residues: torch.Tensor,
    *,
    bits: int,
    every: int,
    blocks: tuple[int, int, int] | None = None,
    warps: int = 4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x W₀ᵀ [n, R], and for the slots of each group a ∘ (inputs Sᵀ) [slots, R].

    `inputs` [slots, C] are x ∘ b of the rows that groups have, a group after the other: those of
    group g are starts[g] to starts[g + 1]; `tasks` [slots] are theirs. `stored` is [G, bytes] or
    [G, R, C], `down` [G, T, R], `scales` [G] what a stored number is worth, `residues` [G, m] those
    of the columns that residues of rows meet (`blocks.partners`). `blocks` are rows of W₀, columns
    of W₀ and units of codes that a program takes at once.
    """
    rows, columns = base.shape
    x, base = x.contiguous(), base.contiguous()
    slots = len(inputs)
    met = dealt(inputs, every, bits)
    units = met.shape[-1]
    y, more = x.new_empty(len(x), rows), x.new_empty(slots, rows)
    row_block, column_block, unit_block = blocks or block_sizes(bits, x.element_size())
    longest = max(16, min(64, triton.next_power_of_2(max(len(x), 1))))
    grid = (
        1 + len(stored) * every,
        triton.cdiv(rows, row_block),
        triton.cdiv(max(len(x), slots), longest),
    )
    launch(
        triton_kernels.products, grid, x.device,
        x, base, y, met, stored, level_table(bits, x.device), starts, tasks, down,
        residues, more, scales, rows, columns,
        len(x), slots, units, units * UNIT[bits], stored[0].numel(), down.shape[1],
        bits=bits, per=PER[bits], unit=UNIT[bits], every=every, batch_block=longest,
        row_block=row_block, column_block=column_block, unit_block=unit_block, num_warps=warps,
    )  # fmt: skip
    return y, more


def swap(
    base: torch.Tensor,
    stored: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None,
    signs: tuple[int, torch.Tensor] | None,
    out: torch.Tensor,
    *,
    bits: int,
    scale: float,
    largest: float,
    beyond: float,
    blocks: tuple[int, int] = (16, 64),
) -> None:
    """Write a task's matrix [R, C] to `out`: W₀ + λ · step · signs ∘ S from S as it is stored.

    `signs` are a kind (1: of columns, 2: hankel, 3: of rows and columns) and packed bits, as
    `core.signs` has them; None: all +1. Products and sums are not fused, so that the bits are those
    of the CPU.
    """
    height, width = base.shape
    table = level_table(bits, base.device)
    kind, flips = signs or (0, table)
    rows, columns = scales if scales is not None else (table, table)
    grid = (triton.cdiv(height, blocks[0]) * triton.cdiv(width // PER[bits], blocks[1]),)
    launch(
        triton_kernels.swap, grid, base.device,
        base, stored, table, rows, columns, flips, out, scale, largest, beyond, height,
        width, bits=bits, per=PER[bits], unit=UNIT[bits], kind=kind, row_block=blocks[0],
        unit_block=blocks[1], enable_fp_fusion=False,
    )  # fmt: skip
