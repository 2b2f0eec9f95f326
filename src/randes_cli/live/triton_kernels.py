# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The Triton kernels of a mixed batch: products with codes as they are stored.

`kernels` calls them, and says what their arguments are.
"""

import triton
import triton.language as tl

from randes_cli.live.triton_codes import code_of, level, loaded


@triton.jit
def prepare(
    x,
    across,
    slot_rows,
    slot_groups,
    slot_tasks,
    met,
    arrived,
    columns,
    count,
    slots,
    width,
    tiles,
    bits: tl.constexpr,
    per: tl.constexpr,
    every: tl.constexpr,
    unit_block: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """`met` [every, slots, width]: x ∘ b of each slot, in the order that `products` meets codes in.

    Program (s, k): of slot s, the k-th run. `arrived` [tiles] becomes 0.
    """
    if early:
        tl.extra.cuda.gdc_launch_dependents()
    slot, run = tl.program_id(0), tl.program_id(1)
    at = run * block + tl.arange(0, block)
    partner, place = at // width, at % width
    inside = place % (unit_block * per)
    unit = place // (unit_block * per) * unit_block + inside % unit_block
    column = (unit * per + code_of(inside // unit_block, bits)) * every + partner
    there = at < every * width
    mine = there & (column < columns)
    row, group = tl.load(slot_rows + slot), tl.load(slot_groups + slot)
    factors = across + (group * count + tl.load(slot_tasks + slot)) * columns
    made = tl.load(x + row * columns + column, mine, 0.0) * tl.load(factors + column, mine, 0.0)
    tl.store(met + (partner * slots + slot) * width + place, made, there)
    if slot == 0:
        tl.store(arrived + at, tl.zeros((block,), tl.int32), at < tiles)


@triton.jit
def base_part(
    x,
    base,
    i,
    batch,
    columns,
    first,
    last,
    batch_block: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    stages: tl.constexpr,
    whole: tl.constexpr,
):
    """Rows i of W₀ times the inputs, over blocks of columns: [rows, batch]."""
    n = tl.minimum(tl.arange(0, batch_block), batch - 1)
    j = first * column_block + tl.arange(0, column_block)
    weights = base + i[:, None] * columns + j[None]
    inputs = x + n[:, None] * columns + j[None]
    total = tl.zeros((row_block, batch_block), tl.float32)
    tl.assume(first < last)  # else tensor cores are waited for after each of their products
    for block in tl.range(first, last, num_stages=stages):
        if whole:
            kept, given = tl.load(weights), tl.load(inputs)
        else:
            inside = (block * column_block + tl.arange(0, column_block) < columns)[None]
            kept, given = tl.load(weights, inside, 0.0), tl.load(inputs, inside, 0.0)
        total = tl.dot(kept, tl.trans(given), total, input_precision="ieee")
        weights += column_block
        inputs += column_block
    return total


@triton.jit
def code_part(
    codes,
    inputs,
    table,
    units,
    first,
    last,
    bits: tl.constexpr,
    per: tl.constexpr,
    unit: tl.constexpr,
    row_block: tl.constexpr,
    slot_block: tl.constexpr,
    unit_block: tl.constexpr,
    stages: tl.constexpr,
    whole: tl.constexpr,
    text: tl.constexpr,
):
    """Rows of codes as levels times what `prepare` made, over blocks of units: [rows, slots]."""
    total = tl.zeros((row_block, slot_block), tl.float32)
    tl.assume(first < last)
    for block in tl.range(first, last, num_stages=stages):
        inside = (block * unit_block + tl.arange(0, unit_block) < units)[None]
        word = loaded(codes, inside, bits, whole)
        for step in tl.static_range(per):
            # Beyond the end levels are not 0, but inputs are.
            given = tl.load(inputs + step * unit_block)
            levels = level(word, table, step, bits, text, given)
            total = tl.dot(levels, tl.trans(given), total, input_precision="ieee")
        codes += unit_block * unit
        inputs += unit_block * per
    return total


@triton.jit
def gathered(
    partial,
    places,
    batch,
    most: tl.constexpr,
    base_parts: tl.constexpr,
    code_parts: tl.constexpr,
    batch_block: tl.constexpr,
    row_block: tl.constexpr,
):
    """The sum of all parts of a tile, in their order: [batch, rows]."""
    # Where they fit in registers, parts are asked for at once: each waits as long as all of them.
    at_once: tl.constexpr = 4 if batch_block * row_block <= 4096 else 1
    n = tl.arange(0, batch_block)
    at = partial + tl.arange(0, row_block)[None]
    total = tl.zeros((batch_block, row_block), tl.float32)
    for p in tl.range(base_parts, loop_unroll_factor=at_once):
        place = p * batch_block * row_block + n[:, None] * row_block
        total += tl.load(at + place, cache_modifier=".cg")
    for m in range(most):
        place = tl.load(places + m * batch + n, n < batch, -1)[:, None]
        group, slot = place >> 16, place & 65535
        for p in tl.range(code_parts, loop_unroll_factor=at_once):
            of = (base_parts + group * code_parts + p) * batch_block * row_block
            total += tl.load(at + of + slot * row_block, place >= 0, 0.0, cache_modifier=".cg")
    return total


@triton.jit
def products(
    x,
    base,
    y,
    met,
    stored,
    table,
    starts,
    slot_tasks,
    places,
    down,
    scales,
    residues,
    partial,
    arrived,
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
    groups: tl.constexpr,
    most: tl.constexpr,
    batch_block: tl.constexpr,
    slot_block: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    unit_block: tl.constexpr,
    base_parts: tl.constexpr,
    code_parts: tl.constexpr,
    base_stages: tl.constexpr,
    code_stages: tl.constexpr,
    whole: tl.constexpr,
    whole_units: tl.constexpr,
    turn: tl.constexpr,
    text: tl.constexpr,
    early: tl.constexpr,
):
    """y = x W₀ᵀ + what the groups add, by rows of weights: program (p, i) has a part of tile i.

    A tile is rows of one residue. A part is a run of columns of W₀, or of one group's codes; they
    run side by side, since the first wait for memory and the second compute. Whoever is done last
    with a tile adds its parts. From tile to tile parts are turned by `turn`: a device of 132
    multiprocessors deals programs to them in turn, and each would get those of one part alone.
    """
    tile = tl.program_id(1)
    residue = tile % every
    rows_here = (tile // every * row_block + tl.arange(0, row_block)) * every + residue
    i = tl.minimum(rows_here, rows - 1).to(tl.int64)
    parts: tl.constexpr = base_parts + groups * code_parts
    part = (tl.program_id(0) + tile * turn) % parts
    size_of_part: tl.constexpr = batch_block * row_block
    mine = partial + (tile * parts + part).to(tl.int64) * size_of_part
    mine += tl.arange(0, row_block)[:, None]
    if part < base_parts:
        blocks = tl.cdiv(columns, column_block)
        first, last = part * blocks // base_parts, (part + 1) * blocks // base_parts
        total = base_part(
            x, base, i, batch, columns, first, last,
            batch_block, row_block, column_block, base_stages, whole,
        )  # fmt: skip
        tl.store(mine + tl.arange(0, batch_block)[None] * row_block, total)
    else:
        group, step = (part - base_parts) // code_parts, (part - base_parts) % code_parts
        first_slot, last_slot = tl.load(starts + group), tl.load(starts + group + 1)
        if first_slot < last_slot:
            s = tl.minimum(first_slot + tl.arange(0, slot_block), last_slot - 1)
            tasks = tl.load(slot_tasks + s)
            factor = tl.load(down + (group * count + tasks[None]) * rows + i[:, None])
            scale, partner = tl.load(scales + group), tl.load(residues + group * every + residue)
            blocks = tl.cdiv(units, unit_block)
            first, last = step * blocks // code_parts, (step + 1) * blocks // code_parts
            k = first * unit_block + tl.arange(0, unit_block)
            codes = stored + group.to(tl.int64) * size + i[:, None] * (units * unit)
            inputs = met + (partner * slots + s[:, None]) * width + first * unit_block * per
            if early:
                tl.extra.cuda.gdc_wait()
            total = code_part(
                codes + k[None] * unit, inputs + tl.arange(0, unit_block)[None], table,
                units, first, last, bits, per, unit,
                row_block, slot_block, unit_block, code_stages, whole_units, text,
            )  # fmt: skip
            total = total * (factor.to(tl.float32) * scale)
            tl.store(mine + tl.arange(0, slot_block)[None] * row_block, total)
    if early:
        tl.extra.cuda.gdc_wait()
    tl.debug_barrier()
    if tl.atomic_add(arrived + tile, 1, sem="acq_rel") == parts - 1:
        total = gathered(
            partial + tile.to(tl.int64) * parts * size_of_part, places, batch,
            most, base_parts, code_parts, batch_block, row_block,
        )  # fmt: skip
        n = tl.arange(0, batch_block)
        done = (n < batch)[:, None] & (rows_here < rows)[None]
        tl.store(y + n[:, None] * rows + rows_here[None], total.to(y.dtype.element_ty), done)
