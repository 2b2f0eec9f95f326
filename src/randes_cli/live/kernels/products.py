# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The Triton kernels of a mixed batch: products with codes as they are stored.

Four, one after another: `prepare` makes x ∘ b, `code_sums` products with codes, `base_sums` those
with W₀, and `finish` adds them. With `early` each may begin when all programs of the one before it
have, and waits inside for what it reads; so codes and W₀ are read side by side. `prepare` has them
begin only when what ran before all four has ended, since only it waits for that. With `base_first`
it is `base_sums` that waits for `prepare`, at once, and `code_sums` comes after it. `kernels` calls
them, and says what their arguments are.
"""

import triton
import triton.language as tl

from randes_cli.live.kernels.codes import level, loaded


@triton.jit
def ask(address, size):
    """Have bytes (a multiple of 16, as the addresses are) brought to the second cache."""
    text: tl.constexpr = "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;"
    tl.inline_asm_elementwise(text, "=r,l,r", [address, size], tl.int32, is_pure=False, pack=1)


@triton.jit
def ask_for_base(base, rows, columns, parts, column_block, ahead: tl.constexpr):
    """The first bytes of what each program of `base_sums` takes of each row."""
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    blocks = tl.cdiv(columns, column_block)
    most = columns - ahead * 8 // base.dtype.element_ty.primitive_bitwidth
    for first in range(program * 128, rows * parts, tl.num_programs(0) * tl.num_programs(1) * 128):
        at = tl.minimum(first + tl.arange(0, 128), rows * parts - 1)
        column = at % parts * blocks // parts * column_block
        ask(base + (at // parts).to(tl.int64) * columns + tl.minimum(column, most), ahead)


@triton.jit
def prepare(
    x,
    across,
    slot_rows,
    slot_groups,
    slot_tasks,
    met,
    columns,
    count,
    slots,
    width,
    base,
    rows,
    parts,
    column_block,
    per: tl.constexpr,
    every: tl.constexpr,
    unit_block: tl.constexpr,
    block: tl.constexpr,
    ahead: tl.constexpr,
    early: tl.constexpr,
):
    """`met`: x ∘ b of each slot, in the order that codes are met in, and lines of memory.

    [every, width / unit_block, slots, unit_block]. Program (s, k): of slot s, the k-th run; runs
    are of one partner.
    """
    if early:
        if ahead > 0:
            ask_for_base(base, rows, columns, parts, column_block, ahead)
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    slot, run = tl.program_id(0), tl.program_id(1)
    runs, partner = tl.cdiv(width, block), 0
    if every > 1:
        partner, run = run // runs, run % runs
    place = run * block + tl.arange(0, block)
    inside = place % (unit_block * per)
    unit = place // (unit_block * per) * unit_block + inside % unit_block
    column = (unit * per + inside // unit_block) * every + partner
    there = place < width
    mine = there & (column < columns)
    row, group = tl.load(slot_rows + slot), tl.load(slot_groups + slot)
    factors = across + (group * count + tl.load(slot_tasks + slot)) * columns
    made = tl.load(x + row * columns + column, mine, 0.0) * tl.load(factors + column, mine, 0.0)
    first = (partner * width + place // unit_block * unit_block) * slots
    tl.store(met + first + slot * unit_block + place % unit_block, made, there)


@triton.jit
def code_part(
    codes,
    inputs,
    mine,
    table,
    units,
    first,
    last,
    along,
    bits: tl.constexpr,
    per: tl.constexpr,
    unit: tl.constexpr,
    row_block: tl.constexpr,
    slot_block: tl.constexpr,
    unit_block: tl.constexpr,
    stages: tl.constexpr,
    whole: tl.constexpr,
    full: tl.constexpr,
    text: tl.constexpr,
):
    """Rows of codes as levels times what `prepare` made, over blocks of units: [rows, slots].

    From one step to the next inputs are `along` apart; what is not `mine` is not read, unless
    slots are `full`.
    """
    total = tl.zeros((row_block, slot_block), tl.float32)
    tl.assume(first < last)  # else tensor cores are waited for after each of their products
    for block in tl.range(first, last, num_stages=stages):
        inside = (block * unit_block + tl.arange(0, unit_block) < units)[None]
        word = loaded(codes, inside, bits, whole)
        for step in tl.static_range(per):
            # Beyond the end levels are not 0, but inputs are.
            given = (
                tl.load(inputs + step * along)
                if full
                else tl.load(inputs + step * along, mine, 0.0)
            )
            levels = level(word, table, step, bits, text, given)
            total = tl.dot(levels, tl.trans(given), total, input_precision="ieee")
        codes += unit_block * unit
        inputs += along * per
    return total


@triton.jit
def code_sums(
    met, stored, table, starts, residues, sums,
    rows, units, width, size, height, longest, parts,
    slots: tl.constexpr, bits: tl.constexpr, per: tl.constexpr, unit: tl.constexpr,
    every: tl.constexpr, row_block: tl.constexpr, slot_block: tl.constexpr,
    unit_block: tl.constexpr, stages: tl.constexpr, whole: tl.constexpr, full: tl.constexpr,
    text: tl.constexpr, ahead: tl.constexpr, base_first: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """(x ∘ b) Sᵀ of a group's slots, over one of `parts` runs of units.

    `sums`: [groups, parts, longest, every, height]. Program (g · parts + p, i): the p-th run of
    group g, and tile i; tiles are rows of one residue.
    """
    if early:
        tl.extra.cuda.gdc_launch_dependents()
    part, tile = tl.program_id(0), tl.program_id(1)
    group, step, residue = part // parts, part % parts, tile % every
    at = tile // every * row_block + tl.arange(0, row_block)
    i = tl.minimum(at * every + residue, rows - 1).to(tl.int64)
    start, end = tl.load(starts + group), tl.load(starts + group + 1)
    if start < end:
        slot = tl.arange(0, slot_block)
        s = tl.minimum(start + slot, end - 1)
        partner = tl.load(residues + group * every + residue)
        blocks = tl.cdiv(units, unit_block)
        first, last = step * blocks // parts, (step + 1) * blocks // parts
        k = first * unit_block + tl.arange(0, unit_block)
        codes = stored + group.to(tl.int64) * size + i * (units * unit)
        inputs = met + (partner * width + first * unit_block * per) * slots
        if early:
            if ahead and whole:
                number: tl.constexpr = (
                    unit_block * unit * stored.dtype.element_ty.primitive_bitwidth // 8
                )
                ask(codes + first * unit_block * unit, (last - first) * number)
            if not base_first:
                tl.extra.cuda.gdc_wait()
        total = code_part(
            codes[:, None] + k[None] * unit,
            inputs + s[:, None] * unit_block + tl.arange(0, unit_block)[None],
            (start + slot < end)[:, None], table, units, first, last, slots * unit_block, bits, per,
            unit, row_block, slot_block, unit_block, stages, whole, full, text,
        )  # fmt: skip
        mine = sums + (part * longest + slot[None]).to(tl.int64) * (every * height)
        there = (at < height)[:, None] & (start + slot < end)[None]
        tl.store(mine + residue * height + at[:, None], total, there)
    if early and base_first:
        final = (part + 1 == tl.num_programs(0)) & (tile + 1 == tl.num_programs(1))
        if final:
            tl.extra.cuda.gdc_wait()  # so whoever waits for this kernel has waited for W₀, too


@triton.jit
def base_sums(
    x, base, sums, rows, columns, batch, parts,
    batch_block: tl.constexpr, row_block: tl.constexpr, column_block: tl.constexpr,
    stages: tl.constexpr, whole: tl.constexpr, base_first: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """x W₀ᵀ over one of `parts` runs of columns: [parts, batch, rows]. Program (p, i): tile i."""
    if early:
        if base_first:
            tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    part, tile = tl.program_id(0), tl.program_id(1)
    n, j = tl.arange(0, batch_block), tl.arange(0, column_block)
    at = tile * row_block + tl.arange(0, row_block)
    i, row = tl.minimum(at, rows - 1).to(tl.int64), tl.minimum(n, batch - 1)
    blocks = tl.cdiv(columns, column_block)
    first, last = part * blocks // parts, (part + 1) * blocks // parts
    weights = base + i[:, None] * columns + (first * column_block + j)[None]
    inputs = x + row[:, None] * columns + (first * column_block + j)[None]
    total = tl.zeros((row_block, batch_block), tl.float32)
    tl.assume(first < last)
    for block in tl.range(first, last, num_stages=stages):
        if whole:
            kept, given = tl.load(weights), tl.load(inputs)
        else:
            inside = (block * column_block + j < columns)[None]
            kept, given = tl.load(weights, inside, 0.0), tl.load(inputs, inside, 0.0)
        total = tl.dot(kept, tl.trans(given), total, input_precision="ieee")
        weights += column_block
        inputs += column_block
    there = (at < rows)[:, None] & (n < batch)[None]
    tl.store(sums + (part * batch + n[None]).to(tl.int64) * rows + at[:, None], total, there)
    if early and not base_first:
        tl.extra.cuda.gdc_wait()  # so whoever waits for this kernel has waited for codes, too


@triton.jit
def place_of(place, starts, slot_tasks, down, scales, rows, count, r, there):
    """Of a row and a group: the group's number, the row's in it, and a times what a code is worth.

    All 0 where `place` is −1.
    """
    real = place >= 0
    group, number = tl.where(real, place >> 16, 0), tl.where(real, place & 65535, 0)
    task = tl.load(slot_tasks + tl.load(starts + group) + number)
    factor = tl.load(
        down + (group * count + task).to(tl.int64) * rows + r, there & (r * 0 + place >= 0), 0.0
    )
    return group, number, factor.to(tl.float32) * tl.load(scales + group)


@triton.jit
def finish(
    of_base, of_codes, places, starts, slot_tasks, down, scales, y,
    rows, batch, count, height, longest,
    most: tl.constexpr, every: tl.constexpr, base_parts: tl.constexpr, code_parts: tl.constexpr,
    block: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """y: the sums of all parts, in their order, a ∘ that of codes. Program (k, n): row n, run k."""
    if early:
        tl.extra.cuda.gdc_launch_dependents()
    n = tl.program_id(1)
    r = tl.program_id(0) * block + tl.arange(0, block)
    there, slot = r < rows, r % every * height + r // every
    # `prepare` has waited for what this reads.
    place = tl.load(places + n)
    group, number, factor = place_of(place, starts, slot_tasks, down, scales, rows, count, r, there)
    if early:
        tl.extra.cuda.gdc_wait()
    total = tl.zeros((block,), tl.float32)
    for p in tl.static_range(base_parts):
        total += tl.load(of_base + (p * batch + n) * rows + r, there, 0.0)
    for m in tl.static_range(most):
        if m > 0:
            place = tl.load(places + m * batch + n)
            group, number, factor = place_of(
                place, starts, slot_tasks, down, scales, rows, count, r, there
            )
        first, of_task = group * (code_parts * longest) + number, tl.zeros((block,), tl.float32)
        for p in tl.static_range(code_parts):
            at = of_codes + (first + p * longest).to(tl.int64) * (every * height)
            of_task += tl.load(at + slot, there & (r * 0 + place >= 0), 0.0)
        total += of_task * factor
    tl.store(y + n * rows + r, total.to(y.dtype.element_ty), there)
