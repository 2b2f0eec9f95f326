"""What Triton computes: products of a mixed batch with codes as they are stored, and a swap.

Imported where Triton is; `TRITON_INTERPRET=1` runs them without a GPU. Row i of a stored matrix
has the columns that its residue's partner has (`blocks`); with m = 1 these are all.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.runtime.errors import OutOfResources

from randes_cli.core.levels import levels
from randes_cli.live.batch.selection import Slots
from randes_cli.live.kernels import products as triton_kernels
from randes_cli.live.kernels import swap as triton_swap
from randes_cli.live.kernels.forms import PER, Form, Order, chosen, order_of, over
from randes_cli.live.kernels.machine_code import level_in_lanes, narrowing, text_of

#: Codes of a unit in a swap: what a thread writes at once.
SWAP_PER = 8
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
    return not bits or columns % SWAP_PER == 0


def as_units(stored: torch.Tensor, bits: int, per: int) -> tuple[torch.Tensor, int]:
    """Stored codes as numbers, and how many of them a unit of `per` codes is."""
    kind = _NUMBERS.get(bits * per)
    if bits * per == 64:
        return stored.view(torch.int32), 2
    return (stored.view(kind), 1) if kind is not None and bits else (stored, max(1, bits))


def _power(count: int) -> int:
    """The power of two that is not less."""
    return 1 << (count - 1).bit_length()


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Where kernels are launched on the device of their tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


#: Loads under way that a form has room for in shared memory, where these are fewer.
_STAGES: dict[object, int] = {}


def launch_staged(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *given: Any, form: Form, **more: Any
) -> None:
    """Run a kernel with as many loads under way as the device's shared memory allows."""
    sizes = (more.get(name) for name in ("bits", "slot_block", "batch_block"))
    key = kernel, device, given[0].dtype, form, *sizes
    for stages in range(_STAGES.get(key, form.stages), 0, -1):
        try:
            kernel[grid](*given, stages=stages, num_warps=form.warps, **more)
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
    order: Order | None = None,
) -> torch.Tensor:
    """x W₀ᵀ, and for each slot (a row that a group has) a ∘ ((x ∘ b) Sᵀ) added to its row: [n, R].

    `stored` is [G, bytes] or [G, R, C], `across` [G, T, C], `down` [G, T, R], `scales` [G] what a
    stored number is worth, `residues` [G, m] those of the columns that residues of rows meet
    (`blocks.partners`). `forms`: of W₀, and of codes.
    """
    shape, groups, longest = (*base.shape,), len(stored), slots.longest
    size = groups, len(x), longest, x.element_size()
    form, code, units, width, height = chosen(shape, bits, every, *size, forms)
    (rows, columns), device = shape, x.device
    x, base, per, room = x.contiguous(), base.contiguous(), PER[bits], _power(len(slots.rows))
    numbers, unit = as_units(stored, bits, per)
    met, y = x.new_empty(every * width * room), x.new_empty(len(x), rows)
    sums = torch.empty(form.parts, len(x), rows, device=device)
    added = torch.empty(groups * code.parts * longest * every * height, device=device)
    order = _possible(order or order_of(shape, every, groups, len(x)), base, numbers)
    run, of_slots, first = 1024 if every == 1 else 512, max(_NARROWEST, _power(longest)), order[0]
    products: list[tuple[Any, ...]] = [
        (triton_kernels.code_sums, (groups * code.parts, over(height, code.rows) * every), (
            met, numbers, level_table(bits, device), slots.starts, residues, added, rows, units,
            width, numbers[0].numel(), height, longest, code.parts,
        ), {
            "slots": room, "bits": bits, "per": per, "unit": unit, "every": every,
            "row_block": code.rows, "slot_block": of_slots, "unit_block": code.columns,
            "whole": units % code.columns == 0, "full": longest == of_slots,
            "text": text_of(bits, x.dtype) if on_cuda(device) else "", "form": code,
            "ahead": order.codes_ahead,
        }),
        _base_product(x, base, sums, form),
    ]  # fmt: skip
    with _on(device):
        after = launched(device)
        triton_kernels.prepare[len(slots.rows), every * over(width, run)](
            x, across, slots.rows, slots.groups, slots.tasks, met, columns, across.shape[1], room,
            width, base, rows, form.parts, form.columns, per=per, every=every,
            unit_block=code.columns, block=run, ahead=order.ahead, **after,
        )  # fmt: skip
        for kernel, grid, given, more in reversed(products) if first else products:
            launch_staged(kernel, grid, device, *given, base_first=first, **more, **after)
        triton_kernels.finish[over(rows, 512), len(x)](
            sums, added, slots.places, slots.starts, slots.tasks, down, scales, y, rows, len(x),
            down.shape[1], height, longest, most=len(slots.places), every=every,
            base_parts=form.parts, code_parts=code.parts, block=512, **after,
        )  # fmt: skip
    return y


def _base_product(
    x: torch.Tensor, base: torch.Tensor, sums: torch.Tensor, form: Form
) -> tuple[Any, ...]:
    """The kernel of x W₀ᵀ, its programs, and what they are given."""
    rows, columns = base.shape
    more = {
        "batch_block": max(16, _power(len(x))),
        "row_block": form.rows,
        "column_block": form.columns,
        "whole": columns % form.columns == 0,
        "form": form,
    }
    given = x, base, sums, rows, columns, len(x), form.parts
    return triton_kernels.base_sums, (form.parts, over(rows, form.rows)), given, more


def launched(device: torch.device) -> dict[str, Any]:
    """How the four are launched there."""
    early = starts_early(device)
    return {"early": early, "enable_fp_fusion": True, **({"launch_pdl": True} if early else {})}


def _possible(order: Order, base: torch.Tensor, numbers: torch.Tensor) -> Order:
    """The same, where memory allows it: what is asked for ahead begins at multiples of 16 bytes."""
    if not order.ahead and not order.codes_ahead:
        return order
    size = base.shape[1] * base.element_size()
    fits = base.data_ptr() % 16 == 0 and size % 16 == 0 and order.ahead <= size
    aligned = numbers.data_ptr() % 16 == 0
    return Order(order.base_first, order.ahead * fits, order.codes_ahead and aligned)


@lru_cache(maxsize=8)
def starts_early(device: torch.device) -> bool:
    """Whether a kernel may start beside the one before it, and wait inside (Hopper and later)."""
    known = hasattr(tl.extra.cuda, "gdc_wait")
    return on_cuda(device) and known and torch.cuda.get_device_capability(device) >= (9, 0)


@lru_cache(maxsize=8)
def narrows(device: torch.device) -> bool:
    """Whether one instruction rounds to finite numbers (Ampere and later)."""
    return on_cuda(device) and torch.cuda.get_device_capability(device) >= (8, 0)


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
    per = SWAP_PER if bits else math.gcd(SWAP_PER, width)
    numbers, unit = as_units(stored, bits, per)
    blocks = SWAP_BLOCKS.get(bits, (4, 512))
    units = max(1, blocks[1] // per)
    lines = blocks[0] * _power(over(over(height, blocks[0]), 65535))  # of programs
    in_lanes = level_in_lanes(bits) if on_cuda(base.device) else ""
    with _on(base.device):
        triton_swap.swap[over(width // per, units), over(height, lines)](
            base, numbers, table, rows, columns, flips, out, scale, largest, height,
            width, bits=bits, per=per, unit=unit, kind=kind, dtype=DTYPES[dtype],
            row_block=lines, unit_block=units, level_text=in_lanes,
            dtype_text=narrowing(dtype) if narrows(base.device) else "",
            enable_fp_fusion=False,
        )  # fmt: skip
