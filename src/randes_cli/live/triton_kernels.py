# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Triton kernels: products of a mixed batch with codes as they are stored, and a swap.

`kernels` calls them, and says what their arguments are.
"""

import triton
import triton.language as tl


@triton.jit
def codes(stored, table, at, mask, q, bits: tl.constexpr):
    """Code q of each unit at `at`, as its level (bits 0: the integer itself)."""
    if bits == 0:
        value = tl.load(stored + at, mask=mask, other=0).to(tl.float32)
    else:
        word = tl.load(stored + at, mask=mask, other=0).to(tl.int32)
        if bits == 3:
            middle = tl.load(stored + at + 1, mask=mask, other=0).to(tl.int32)
            high = tl.load(stored + at + 2, mask=mask, other=0).to(tl.int32)
            word = word | (middle << 8) | (high << 16)
        code = (word >> (bits * q)) & ((1 << bits) - 1)
        if bits == 1:
            value = tl.where(code == 0, tl.load(table), tl.load(table + 1))
        elif bits == 2:
            low = tl.where(code == 0, tl.load(table), tl.load(table + 1))
            high = tl.where(code == 2, tl.load(table + 2), tl.load(table + 3))
            value = tl.where(code < 2, low, high)
        else:
            value = tl.load(table + code)
    return value


@triton.jit
def signs_of(bits, place, mask):
    """±1 by packed bits, as `core.signs` has them: 1 means −1."""
    byte = tl.load(bits + (place >> 3), mask, 0).to(tl.int32)
    return 1.0 - 2.0 * ((byte >> (place & 7).to(tl.int32)) & 1).to(tl.float32)


@triton.jit
def products(
    x,
    base,
    y,
    inputs,
    stored,
    table,
    starts,
    tasks,
    down,
    residues,
    more,
    scales,
    rows,
    columns,
    batch,
    slots,
    units,
    width,
    size,
    count,
    bits: tl.constexpr,
    per: tl.constexpr,
    unit: tl.constexpr,
    every: tl.constexpr,
    batch_block: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    unit_block: tl.constexpr,
):
    """Program (0, i, k): rows i of x W₀ᵀ; program (1 + g · m + r, i, k): of group g, residue r.

    Both kinds run side by side: the first waits for memory, the second computes.
    """
    part, tile, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    total = tl.zeros((batch_block, row_block), tl.float32)
    if part == 0:
        i = tile * row_block + tl.arange(0, row_block)
        n = chunk * batch_block + tl.arange(0, batch_block)
        for first in range(0, columns, column_block):
            j = first + tl.arange(0, column_block)
            there = (i[:, None] < rows) & (j[None] < columns)
            kept = tl.load(base + i[:, None].to(tl.int64) * columns + j[None], there, 0.0)
            mine = (n[:, None] < batch) & (j[None] < columns)
            given = tl.load(x + n[:, None] * columns + j[None], mine, 0.0)
            total = tl.dot(given, tl.trans(kept), total, input_precision="ieee")
        mine = (n[:, None] < batch) & (i[None] < rows)
        tl.store(y + n[:, None] * rows + i[None], total.to(y.dtype.element_ty), mine)
    else:
        group, residue = (part - 1) // every, (part - 1) % every
        first_slot, last_slot = tl.load(starts + group), tl.load(starts + group + 1)
        n = first_slot + chunk * batch_block + tl.arange(0, batch_block)
        if (first_slot + chunk * batch_block < last_slot) & (tile * row_block * every < rows):
            i = (tile * row_block + tl.arange(0, row_block)) * every + residue
            partner = tl.load(residues + group * every + residue)
            line = stored + group.to(tl.int64) * size
            for first in range(0, units, unit_block):
                k = first + tl.arange(0, unit_block)
                there = (i[:, None] < rows) & (k[None] < units)
                at = i[:, None].to(tl.int64) * width + k[None] * unit
                mine = (n[:, None] < last_slot) & (k[None] < units)
                for q in tl.static_range(per):
                    # Beyond the end levels are not 0, but inputs are.
                    level = codes(line, table, at, there, q, bits).to(inputs.dtype.element_ty)
                    place = (partner * per + q) * slots + n[:, None]
                    given = tl.load(inputs + place * units + k[None], mine, 0.0)
                    total = tl.dot(given, tl.trans(level), total, input_precision="ieee")
            mine = (n[:, None] < last_slot) & (i[None] < rows)
            task = tl.load(tasks + n, n < last_slot, 0)
            place = (group * count + task[:, None]) * rows + i[None]
            factor = tl.load(down + place, mine, 0.0).to(tl.float32)
            made = total * tl.load(scales + group) * factor
            tl.store(more + n[:, None] * rows + i[None], made.to(more.dtype.element_ty), mine)


@triton.jit
def swap(
    base,
    stored,
    table,
    rows,
    columns,
    signs,
    out,
    scale,
    largest,
    beyond,
    height,
    width,
    bits: tl.constexpr,
    per: tl.constexpr,
    unit: tl.constexpr,
    kind: tl.constexpr,
    row_block: tl.constexpr,
    unit_block: tl.constexpr,
):
    """out = Θ₀ + (level · column · row) · scale · signs, rounded as the CPU rounds it."""
    units = width // per
    tiles = tl.cdiv(units, unit_block)
    across, along = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    i = (along * row_block + tl.arange(0, row_block))[:, None].to(tl.int64)
    k = (across * unit_block + tl.arange(0, unit_block))[None]
    there = (i < height) & (k < units)
    for q in tl.static_range(per):
        j = k * per + q
        value = codes(stored, table, (i * units + k) * unit, there, q, bits)
        if bits > 0:
            value = value * tl.load(columns + j, there, 0.0) * tl.load(rows + i, there, 0.0)
        if kind == 1:  # of columns
            sign = signs_of(signs, j, j < width)
        elif kind == 2:  # hankel
            sign = signs_of(signs, i + j, there)
        elif kind == 3:  # of rows, then of columns
            sign = signs_of(signs, i, i < height) * signs_of(signs, height + j, j < width)
        else:
            sign = 1.0
        kept = tl.load(base + i * width + j, there, 0.0).to(tl.float32)
        made = value * (sign * scale) + kept
        made = tl.where(tl.abs(made) >= beyond, tl.where(made > 0, largest, -largest), made)
        tl.store(out + i * width + j, made.to(out.dtype.element_ty), there)
