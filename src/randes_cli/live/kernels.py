"""What Triton computes: products of a mixed batch with codes as they are stored, and a swap.

Imported where Triton is; `TRITON_INTERPRET=1` runs them without a GPU. Row i of a stored matrix
has the columns that its residue's partner has (`blocks`); with m = 1 these are all.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton.runtime.errors import OutOfResources

from randes_cli.core.levels import levels
from randes_cli.live import triton_kernels, triton_swap
from randes_cli.live.machine_code import text_of
from randes_cli.live.selection import Slots

#: Codes that a unit of a stored matrix has, by bits (0: integers); rows are whole units.
PER = {0: 1, 1: 16, 2: 16, 3: 8, 4: 8, 8: 4}
#: The same in a swap: what a thread writes at once.
SWAP_PER = {1: 8, 2: 8, 3: 8, 4: 8, 8: 4}
#: Dtypes as Triton names them.
DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
#: The fewest columns of a product: Triton before 3.6 asserts 16.
_NARROWEST = 8 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6) else 16
_NUMBERS = {8: torch.uint8, 16: torch.int16, 32: torch.int32}


@lru_cache(maxsize=32)
def level_table(bits: int, device: torch.device) -> torch.Tensor:
    """The levels of codes, in float32."""
    values = levels(bits) if bits else [0.0]
    return torch.tensor([float(v) for v in values], dtype=torch.float32, device=device)


def fits(columns: int, every: int, bits: int) -> bool:
    """Whether each row of a stored matrix is whole units."""
    return -(-columns // every) % PER[bits] == 0


def swap_fits(columns: int, bits: int) -> bool:
    """The same of a swap."""
    return columns % SWAP_PER.get(bits, 1) == 0


def as_units(stored: torch.Tensor, bits: int, per: int) -> tuple[torch.Tensor, int]:
    """Stored codes as numbers, and how many of them a unit of `per` codes is."""
    kind = _NUMBERS.get(bits * per)
    return (stored.view(kind), 1) if kind is not None and bits else (stored, max(1, bits))


class Form(NamedTuple):
    """How a product is cut: rows, columns of W₀ and units of codes that a program takes at once.

    Attributes:
        base_parts: programs that share the columns of W₀ in a tile of rows.
        code_parts: programs that share those of one group's codes; 0: with one group, those of W₀.
        base_stages: loads of W₀ that are under way ahead; `code_stages`: of codes.
        turn: how far parts are turned from one tile to the next.
    """

    rows: int
    columns: int
    units: int
    base_parts: int
    code_parts: int
    base_stages: int
    code_stages: int
    warps: int
    turn: int = 0


def form_of(
    shape: tuple[int, int],
    batch: int,
    bits: int,
    every: int,
    groups: int,
    longest: int,
    size: int = 2,
) -> Form:
    """How a product is cut for matrices of a 7B Llama on an H200 (`benchmarks/gpu.py`).

    With 16 rows of one group what was fastest, or near it; else what a model of what each
    multiprocessor reads says (docs/kernels.md). Where a group has 8 rows at most (`longest`), its
    products take twice as many units: then they are of a form that needs no waiting, and half as
    wide. Numbers of four bytes (`size`) are multiplied without tensor cores, in small tiles.
    """
    if groups == 1 and batch > 16 and size == 2:
        height, parts = _cut(*shape, max(16, triton.next_power_of_2(batch)), every)
        return Form(height, 64, 16 if bits else 64, parts, 0, 4, 2, 8 if height > 64 else 4)
    if not bits:
        return Form(64, 64, 128, 2, 2, 3, 3, 4)
    units = 16 if longest > 8 else 32
    if max(groups, every) < 4:
        parts = 2 + 4 * groups
        tall = triton.cdiv(shape[0], 128) * parts >= 128
        turn = 0 if groups == 1 and batch <= 16 else 2
        return Form(128 if tall else 64, 64, units, 2, 4, 5 if batch <= 16 else 4, 2, 4, turn)
    return Form(128, 64, units, 4, 1, 4 if batch <= 16 else 3, 2, 4, 4)


@lru_cache(maxsize=256)
def _cut(rows: int, columns: int, batch: int, every: int) -> tuple[int, int]:
    """Rows of a tile, and its parts, that keep the busiest of 132 multiprocessors least busy.

    A program reads its weights, and inputs twice (for W₀ and for codes), and writes its sums; the
    last one of a tile reads all of these, three times as fast, as the others are done by then.
    """

    def busy(cut: tuple[int, int]) -> float:
        height, parts = cut
        sums = height * batch * 4
        programs = triton.cdiv(triton.cdiv(rows, every), height) * every * parts
        waves: int = triton.cdiv(programs, 132)
        return waves * (columns / parts * (2 * height + 4 * batch) + sums) + parts * sums / 3

    return min(((h, p) for h in (256, 128, 64) for p in range(1, 9)), key=busy)


def launch(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *given: Any, **form: Any
) -> None:
    """Run a kernel on the device of its tensors."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*given, **form)


#: Loads ahead that a form of a product has room for in shared memory, where these are fewer.
_STAGES: dict[object, int] = {}


def launch_staged(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *given: Any, form: Form, **more: Any
) -> None:
    """`launch` with as many loads ahead as the device's shared memory allows."""
    key = kernel, device, given[0].dtype, form, tuple(more.items())
    for most in range(_STAGES.get(key, form.base_stages), 0, -1):
        stages = {
            "base_stages": min(most, form.base_stages),
            "code_stages": min(most, form.code_stages),
        }
        try:
            launch(kernel, grid, device, *given, **stages, **more)
        except OutOfResources:
            if most == 1:
                raise
            _STAGES[key] = most - 1
        else:
            return


def _parts(form: Form, columns: int, units: int, groups: int) -> tuple[int, int]:
    """`base_parts` and `code_parts`, as far as each has something to do."""
    if groups > 1 and not form.code_parts:
        raise ValueError("a form without parts of codes is for one group")
    blocks = triton.cdiv(columns, form.columns), triton.cdiv(units, form.units)
    here = min(blocks) if form.code_parts == 0 else blocks[0]
    return min(form.base_parts, here), min(form.code_parts, blocks[1])


def mixed_product(
    x: torch.Tensor,
    base: torch.Tensor,
    stored: torch.Tensor,
    across: torch.Tensor,
    down: torch.Tensor,
    scales: torch.Tensor,
    residues: torch.Tensor,
    slots: Slots,
    *,
    bits: int,
    every: int,
    form: Form | None = None,
) -> torch.Tensor:
    """x W₀ᵀ, and for each slot (a row that a group has) a ∘ ((x ∘ b) Sᵀ) added to its row: [n, R].

    `stored` is [G, bytes] or [G, R, C], `across` [G, T, C], `down` [G, T, R], `scales` [G] what a
    stored number is worth, `residues` [G, m] those of the columns that residues of rows meet
    (`blocks.partners`). Two kernels: the first prepares x ∘ b, the second makes all products.
    """
    (rows, columns), groups = base.shape, len(stored)
    asked = (rows, columns), len(x), bits, every, groups, slots.longest, x.element_size()
    form = form or form_of(*asked)
    x, base = x.contiguous(), base.contiguous()
    numbers, unit = as_units(stored, bits, PER[bits])
    units = -(-columns // every) // PER[bits]
    width = triton.cdiv(units, form.units) * form.units * PER[bits]
    tiles = triton.cdiv(triton.cdiv(rows, every), form.rows) * every
    base_parts, code_parts = _parts(form, columns, units, groups)
    parts = base_parts + groups * code_parts
    batch_block = max(16, triton.next_power_of_2(len(x)))  # slots of a group are no more than rows
    slot_block = max(16 if form.units < 32 else _NARROWEST, triton.next_power_of_2(slots.longest))
    met = x.new_empty(every * width * (room := batch_block * len(slots.places)))
    arrived = torch.empty(tiles, dtype=torch.int32, device=x.device)
    partial = torch.empty(tiles, parts, batch_block, form.rows, device=x.device)
    y = x.new_empty(len(x), rows)
    block, early = 1024, starts_early(x.device)
    launch(
        triton_kernels.prepare,
        (len(slots.rows), triton.cdiv(max(every * width, tiles), block)), x.device,
        x, across, slots.rows, slots.groups, slots.tasks, met, arrived, columns, across.shape[1],
        room, width, tiles,
        bits=bits, per=PER[bits], every=every, unit_block=form.units, block=block, early=early,
    )  # fmt: skip
    launch_staged(
        triton_kernels.products, (parts, tiles), x.device,
        x, base, y, met, numbers, level_table(bits, x.device), slots.starts, slots.tasks,
        slots.places, down, scales, residues, partial, arrived,
        rows, columns, len(x), units, width, numbers[0].numel(), down.shape[1],
        slots=room, bits=bits, per=PER[bits], unit=unit, every=every, groups=groups,
        most=len(slots.places), batch_block=batch_block, slot_block=slot_block,
        row_block=form.rows, column_block=form.columns, unit_block=form.units,
        base_parts=base_parts, code_parts=code_parts,
        whole=columns % form.columns == 0, whole_units=units % form.units == 0, turn=form.turn,
        text=text_of(bits, x.dtype) if on_cuda(x.device) else "", early=early,
        form=form, num_warps=form.warps, **({"launch_pdl": True} if early else {}),
    )  # fmt: skip
    return y


@lru_cache(maxsize=8)
def starts_early(device: torch.device) -> bool:
    """Whether a kernel may start beside the one before it, and wait inside (Hopper and later)."""
    known = hasattr(tl.extra.cuda, "gdc_wait")
    return on_cuda(device) and known and torch.cuda.get_device_capability(device) >= (9, 0)


def on_cuda(device: torch.device) -> bool:
    """Whether kernels are compiled to PTX there, and not interpreted."""
    return device.type == "cuda" and torch.version.hip is None


def swap(
    base: torch.Tensor,
    stored: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor] | None,
    signs: tuple[int, torch.Tensor] | None,
    dtype: torch.dtype,
    out: torch.Tensor,
    *,
    bits: int,
    scale: float,
    largest: float,
    blocks: tuple[int, int] = (4, 512),
) -> None:
    """Write a task's matrix [R, C], of a dtype, to `out`: W₀ + λ · step · signs ∘ S.

    `signs` are a kind (1: of columns, 2: hankel, 3: of rows and columns) and packed bits, as
    `core.signs` has them, with two bytes more; None: all +1. Products and sums are not fused, so
    that the bits are those of the CPU.
    """
    height, width = base.shape
    table = level_table(bits, base.device)[1 << bits >> 1 :]
    kind, flips = signs or (0, table)
    rows, columns = scales if scales is not None else (table, table)
    per = SWAP_PER[bits] if bits else math.gcd(8, width)
    numbers, unit = as_units(stored, bits, per)
    units = max(1, blocks[1] // per)
    grid = (triton.cdiv(height, blocks[0]) * triton.cdiv(width // per, units),)
    launch(
        triton_swap.swap, grid, base.device,
        base, numbers, table, rows, columns, flips, out, scale, largest, height,
        width, bits=bits, per=per, unit=unit, kind=kind, dtype=DTYPES[dtype], row_block=blocks[0],
        unit_block=units, enable_fp_fusion=False,
    )  # fmt: skip
