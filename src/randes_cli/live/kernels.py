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

#: Codes that a unit of a stored matrix has, by bits (0: integers): a byte; rows are whole units.
PER = {0: 1, 1: 8, 2: 4, 3: 8, 4: 2, 8: 1}
#: The same in a swap: what a thread writes at once.
SWAP_PER = {1: 8, 2: 8, 3: 8, 4: 8, 8: 4}
#: Rows and columns of W₀ that a program of a swap takes, by bits: what was fastest on an H200.
SWAP_BLOCKS = {0: (1, 1024), 4: (1, 2048), 8: (1, 2048)}
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
    """How a product is cut.

    Attributes:
        rows: of weights, a tile of which a program takes.
        columns: of W₀, or units of codes, that it takes at once.
        parts: programs that share the columns of a tile.
        stages: loads that are under way at once.
        warps: of a program.
    """

    rows: int
    columns: int
    parts: int
    stages: int
    warps: int


#: Forms of x W₀ᵀ for square, tall and wide matrices, with 16 rows and with more; see `_kind`.
BASE_FORMS = (
    (Form(64, 128, 2, 4, 4), Form(64, 128, 2, 3, 4), Form(64, 128, 4, 3, 4)),
    (Form(64, 64, 2, 6, 4), Form(64, 64, 1, 6, 4), Form(64, 128, 2, 4, 4)),
)
#: The same of codes, by bits, where groups have 16 rows at most, and where they have more.
CODE_FORMS: tuple[dict[int, tuple[Form, Form, Form]], ...] = (
    {
        0: (Form(64, 128, 4, 3, 4),) * 3,
        1: (Form(64, 64, 2, 3, 4),) * 3,
        2: (Form(64, 128, 4, 3, 4), Form(64, 64, 4, 3, 2), Form(64, 128, 2, 3, 4)),
        4: (Form(64, 128, 4, 3, 2), Form(64, 32, 4, 3, 2), Form(64, 128, 4, 3, 2)),
        8: (Form(64, 128, 8, 3, 2),) * 3,
    },
    {
        0: (Form(64, 128, 2, 3, 4), Form(64, 128, 1, 3, 4), Form(64, 128, 4, 3, 4)),
        1: (Form(64, 32, 2, 3, 4), Form(64, 32, 1, 3, 4), Form(128, 32, 4, 3, 8)),
        2: (Form(64, 64, 2, 3, 4), Form(64, 64, 1, 3, 4), Form(128, 64, 4, 2, 8)),
        4: (Form(128, 64, 4, 3, 8), Form(64, 64, 2, 3, 4), Form(128, 64, 4, 3, 8)),
        8: (Form(64, 128, 4, 3, 4), Form(64, 128, 2, 3, 4), Form(64, 128, 4, 3, 4)),
    },
)


def base_form(shape: tuple[int, int], batch: int, size: int = 2) -> Form:
    """How x W₀ᵀ is cut: what was fastest for a 7B Llama on an H200 (`benchmarks/gpu.py`).

    Numbers of four bytes (`size`) are multiplied without tensor cores, in smaller tiles.
    """
    form = BASE_FORMS[batch > 16][_kind(shape)]
    return _spread(form if size == 2 else Form(64, 32, 2, 3, 4), shape[0])


def code_form(
    shape: tuple[int, int], bits: int, every: int, groups: int, longest: int, size: int = 2
) -> Form:
    """The same of products with codes, of groups of at most `longest` rows."""
    kind, per = _kind(shape), PER[bits]
    if size > 2 or bits == 3:
        form = Form(64, 32, 2, 2, 4)
    elif groups == 1:
        form = CODE_FORMS[longest > 16][bits][kind]
    elif every >= 4:
        form = Form(64, max(32, 128 // per), 1, 2, 2)
    elif bits == 1:  # groups share the multiprocessors as parts do
        form = Form(64, 64, 2 if kind == 2 else 1, 3, 4)
    else:
        form = Form(64, min(128, 512 // per), 1 if kind == 1 else 2, 3, 4)
    return _spread(form, shape[0] * groups)


def _kind(shape: tuple[int, int]) -> int:
    """0: square; 1: tall, with more tiles than an H200 has multiprocessors; 2: wide."""
    tall = shape[0] > 64 * 132
    return 1 if tall else 2 * (shape[1] > 8192)


def _spread(form: Form, rows: int) -> Form:
    """In more parts where there are fewer tiles than forms were found for."""
    return form._replace(parts=form.parts * max(1, 64 * 64 // max(rows, 64)))


def launch(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *given: Any, **form: Any
) -> None:
    """Run a kernel on the device of its tensors."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*given, **form)


#: Loads under way that a form has room for in shared memory, where these are fewer.
_STAGES: dict[object, int] = {}


def launch_staged(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *given: Any, form: Form, **more: Any
) -> None:
    """`launch` with as many loads under way as the device's shared memory allows."""
    key = kernel, device, given[0].dtype, form, tuple(more.items())
    for stages in range(_STAGES.get(key, form.stages), 0, -1):
        try:
            launch(kernel, grid, device, *given, stages=stages, num_warps=form.warps, **more)
        except OutOfResources:
            if stages == 1:
                raise
            _STAGES[key] = stages - 1
        else:
            return


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
    forms: tuple[Form, Form] | None = None,
) -> torch.Tensor:
    """x W₀ᵀ, and for each slot (a row that a group has) a ∘ ((x ∘ b) Sᵀ) added to its row: [n, R].

    `stored` is [G, bytes] or [G, R, C], `across` [G, T, C], `down` [G, T, R], `scales` [G] what a
    stored number is worth, `residues` [G, m] those of the columns that residues of rows meet
    (`blocks.partners`). `forms`: of W₀, and of codes.
    """
    (rows, columns), groups, size, device = base.shape, len(stored), x.element_size(), x.device
    asked = (rows, columns), bits, every, groups, slots.longest, size
    of_base, of_codes = forms or (base_form((rows, columns), len(x), size), code_form(*asked))
    x, base, early = x.contiguous(), base.contiguous(), starts_early(device)
    after: dict[str, Any] = {"launch_pdl": True} if early else {}
    numbers, unit = as_units(stored, bits, PER[bits])
    units, height = -(-columns // every) // PER[bits], triton.cdiv(rows, every)
    blocks = triton.cdiv(columns, of_base.columns), triton.cdiv(units, of_codes.columns)
    base_parts, code_parts = min(of_base.parts, blocks[0]), min(of_codes.parts, blocks[1])
    width = blocks[1] * of_codes.columns * PER[bits]
    room = triton.next_power_of_2(len(slots.rows))
    met = x.new_empty(every * width * room)
    sums = torch.empty(base_parts, len(x), rows, device=device)
    added = torch.empty(groups * code_parts * slots.longest * every * height, device=device)
    y, block = x.new_empty(len(x), rows), 1024
    launch(
        triton_kernels.prepare, (len(slots.rows), triton.cdiv(every * width, block)), device,
        x, across, slots.rows, slots.groups, slots.tasks, met, columns, across.shape[1], room,
        width, per=PER[bits], every=every, unit_block=of_codes.columns, block=block, early=early,
        **after,
    )  # fmt: skip
    launch_staged(
        triton_kernels.code_sums,
        (groups * code_parts, triton.cdiv(height, of_codes.rows) * every), device,
        met, numbers, level_table(bits, device), slots.starts, slots.tasks, down, scales, residues,
        added, rows, units, width, numbers[0].numel(), down.shape[1], height, slots.longest,
        code_parts, slots=room, bits=bits, per=PER[bits], unit=unit, every=every,
        row_block=of_codes.rows, slot_block=max(_NARROWEST, triton.next_power_of_2(slots.longest)),
        unit_block=of_codes.columns, whole=units % of_codes.columns == 0,
        text=text_of(bits, x.dtype) if on_cuda(device) else "", early=early, form=of_codes, **after,
    )  # fmt: skip
    launch_staged(
        triton_kernels.base_sums, (base_parts, triton.cdiv(rows, of_base.rows)), device,
        x, base, sums, rows, columns, len(x), base_parts,
        batch_block=max(16, triton.next_power_of_2(len(x))), row_block=of_base.rows,
        column_block=of_base.columns, whole=columns % of_base.columns == 0, early=early,
        form=of_base, **after,
    )  # fmt: skip
    launch(
        triton_kernels.finish, (triton.cdiv(rows, 512), len(x)), device,
        sums, added, slots.places, y, rows, len(x), height, slots.longest,
        most=len(slots.places), every=every, base_parts=base_parts, code_parts=code_parts,
        block=512, early=early, **after,
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
) -> None:
    """Write a task's matrix [R, C], of a dtype, to `out`: W₀ + λ · step · signs ∘ S.

    `signs` are a kind (1: of columns, 2: hankel, 3: of rows and columns) and packed bits, as
    `core.signs` has them, with two bytes more; None: all +1. Products and sums are not fused, so
    that the bits are those of the CPU.
    """
    height, width = base.shape
    table = level_table(bits, base.device)
    kind, flips = signs or (0, table)
    rows, columns = scales if scales is not None else (table, table)
    per = SWAP_PER[bits] if bits else math.gcd(8, width)
    numbers, unit = as_units(stored, bits, per)
    blocks = SWAP_BLOCKS.get(bits, (4, 512))
    units = max(1, blocks[1] // per)
    grid = (triton.cdiv(height, blocks[0]) * triton.cdiv(width // per, units),)
    launch(
        triton_swap.swap, grid, base.device,
        base, numbers, table, rows, columns, flips, out, scale, largest, height,
        width, bits=bits, per=per, unit=unit, kind=kind, dtype=DTYPES[dtype], row_block=blocks[0],
        unit_block=units, enable_fp_fusion=False,
    )  # fmt: skip
