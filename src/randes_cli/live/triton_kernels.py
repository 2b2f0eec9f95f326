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
    """`met`: x ∘ b of each slot, in the order that `products` meets codes in, and lines of memory.

    [every, width / unit_block, slots, unit_block]. Program (s, k): of slot s, the k-th run.
    `arrived` [tiles] becomes 0.
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
    first = (partner * width + place // unit_block * unit_block) * slots
    tl.store(met + first + slot * unit_block + place % unit_block, made, there)
    if slot == 0:
        tl.store(arrived + at, tl.zeros((block,), tl.int32), at < tiles)


@triton.jit
def base_part(
    x, base, i, part, parts, columns, batch,
    batch_block: tl.constexpr, row_block: tl.constexpr, column_block: tl.constexpr,
    stages: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Rows i of W₀ times the inputs, over one of `parts` runs of columns: [rows, batch]."""
    blocks = tl.cdiv(columns, column_block)
    first, last = part * blocks // parts, (part + 1) * blocks // parts
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
    along: tl.constexpr,
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
    """Rows of codes as levels times what `prepare` made, over blocks of units: [rows, slots].

    From one step to the next inputs are `along` apart.
    """
    total = tl.zeros((row_block, slot_block), tl.float32)
    tl.assume(first < last)
    for block in tl.range(first, last, num_stages=stages):
        inside = (block * unit_block + tl.arange(0, unit_block) < units)[None]
        word = loaded(codes, inside, bits, whole)
        for step in tl.static_range(per):
            # Beyond the end levels are not 0, but inputs are.
            given = tl.load(inputs + step * along)
            levels = level(word, table, step, bits, text, given)
            total = tl.dot(levels, tl.trans(given), total, input_precision="ieee")
        codes += unit_block * unit
        inputs += along * per
    return total


@triton.jit
def group_part(
    met, stored, table, slot_tasks, down, scales, residues, s, i, group, residue, step, steps,
    rows, units, width, size, count,
    slots: tl.constexpr, bits: tl.constexpr, per: tl.constexpr, unit: tl.constexpr,
    every: tl.constexpr, row_block: tl.constexpr, slot_block: tl.constexpr,
    unit_block: tl.constexpr, stages: tl.constexpr, whole: tl.constexpr, text: tl.constexpr,
    early: tl.constexpr,
):  # fmt: skip
    """a ∘ ((x ∘ b) Sᵀ) of slots s, rows i and one of `steps` runs of units: [rows, slots]."""
    tasks = tl.load(slot_tasks + s)
    factor = tl.load(down + (group * count + tasks[None]) * rows + i[:, None])
    scale, partner = tl.load(scales + group), tl.load(residues + group * every + residue)
    blocks = tl.cdiv(units, unit_block)
    first, last = step * blocks // steps, (step + 1) * blocks // steps
    k = first * unit_block + tl.arange(0, unit_block)
    codes = stored + size.to(tl.int64) * group + i[:, None] * (units * unit)
    inputs = met + (partner * width + first * unit_block * per) * slots + s[:, None] * unit_block
    if early:
        tl.extra.cuda.gdc_wait()
    total = code_part(
        codes + k[None] * unit, inputs + tl.arange(0, unit_block)[None], table,
        units, first, last, slots * unit_block, bits, per, unit,
        row_block, slot_block, unit_block, stages, whole, text,
    )  # fmt: skip
    return total * (factor.to(tl.float32) * scale)


@triton.jit
def finished(
    y, partial, arrived, places, tile, rows_here, rows, batch,
    most: tl.constexpr, base_parts: tl.constexpr, code_parts: tl.constexpr, groups: tl.constexpr,
    batch_block: tl.constexpr, row_block: tl.constexpr,
):  # fmt: skip
    """Whoever is done last with a tile adds all of its parts, in their order, and writes y."""
    parts: tl.constexpr = base_parts + groups * code_parts
    size: tl.constexpr = batch_block * row_block
    tl.debug_barrier()
    if tl.atomic_add(arrived + tile, 1, sem="acq_rel") == parts - 1:
        # Where they fit in registers, parts are asked for at once: each waits as long as all.
        at_once: tl.constexpr = 4 if size <= 4096 else 1
        n = tl.arange(0, batch_block)
        at = partial + tile.to(tl.int64) * parts * size + tl.arange(0, row_block)[None]
        total = tl.zeros((batch_block, row_block), tl.float32)
        for p in tl.range(base_parts, loop_unroll_factor=at_once):
            place = p * size + n[:, None] * row_block
            total += tl.load(at + place, cache_modifier=".cg")
        if code_parts > 0:
            for m in range(most):
                place = tl.load(places + m * batch + n, n < batch, -1)[:, None]
                group, slot = place >> 16, place & 65535
                for p in tl.range(code_parts, loop_unroll_factor=at_once):
                    of = (base_parts + group * code_parts + p) * size + slot * row_block
                    total += tl.load(at + of, place >= 0, 0.0, cache_modifier=".cg")
        done = (n < batch)[:, None] & (rows_here < rows)[None]
        tl.store(y + n[:, None] * rows + rows_here[None], total.to(y.dtype.element_ty), done)


@triton.jit
def products(
    x, base, y, met, stored, table, starts, slot_tasks, places, down, scales, residues, partial,
    arrived, rows, columns, batch, units, width, size, count,
    slots: tl.constexpr, bits: tl.constexpr, per: tl.constexpr, unit: tl.constexpr,
    every: tl.constexpr, groups: tl.constexpr, most: tl.constexpr,
    batch_block: tl.constexpr, slot_block: tl.constexpr,
    row_block: tl.constexpr, column_block: tl.constexpr, unit_block: tl.constexpr,
    base_parts: tl.constexpr, code_parts: tl.constexpr,
    base_stages: tl.constexpr, code_stages: tl.constexpr,
    whole: tl.constexpr, whole_units: tl.constexpr,
    turn: tl.constexpr, text: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """y = x W₀ᵀ + what the groups add, by rows of weights: program (p, i) has a part of tile i.

    A tile is rows of one residue. A part is a run of columns of W₀, or of one group's codes: they
    run side by side, since the first wait for memory and the second compute. Without `code_parts`
    a part is of both, and of a lone group: fewer parts are summed. From tile to tile they are
    turned by `turn`: 132 multiprocessors are dealt programs in turn, and each would get those of
    one part alone.
    """
    tile, n = tl.program_id(1), tl.arange(0, batch_block)
    residue = tile % every
    rows_here = (tile // every * row_block + tl.arange(0, row_block)) * every + residue
    i = tl.minimum(rows_here, rows - 1).to(tl.int64)
    parts: tl.constexpr = base_parts + groups * code_parts
    part = (tl.program_id(0) + tile * turn) % parts
    mine = partial + (tile * parts + part).to(tl.int64) * (batch_block * row_block)
    mine += tl.arange(0, row_block)[:, None]
    if part < base_parts:
        total = base_part(
            x, base, i, part, base_parts, columns, batch,
            batch_block, row_block, column_block, base_stages, whole,
        )  # fmt: skip
        if code_parts == 0:
            place = tl.load(places + n, n < batch, -1)
            added = group_part(
                met, stored, table, slot_tasks, down, scales, residues, tl.maximum(place, 0), i, 0,
                residue, part, base_parts, rows, units, width, size, count, slots, bits, per, unit,
                every, row_block, batch_block, unit_block, code_stages, whole_units, text, early,
            )  # fmt: skip
            total += tl.where((place >= 0)[None], added, 0.0)
        tl.store(mine + n[None] * row_block, total)
    elif code_parts > 0:
        group, step = (part - base_parts) // code_parts, (part - base_parts) % code_parts
        first, last = tl.load(starts + group), tl.load(starts + group + 1)
        if first < last:
            s = tl.arange(0, slot_block)
            total = group_part(
                met, stored, table, slot_tasks, down, scales, residues,
                tl.minimum(first + s, last - 1), i, group, residue, step, code_parts,
                rows, units, width, size, count, slots, bits, per, unit, every,
                row_block, slot_block, unit_block, code_stages, whole_units, text, early,
            )  # fmt: skip
            tl.store(mine + s[None] * row_block, total)
    if early:
        tl.extra.cuda.gdc_wait()
    finished(
        y, partial, arrived, places, tile, rows_here, rows, batch,
        most, base_parts, code_parts, groups, batch_block, row_block,
    )  # fmt: skip
