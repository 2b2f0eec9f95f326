# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The Triton kernel of a swap. `kernels` calls it, and says what its arguments are."""

import triton
import triton.language as tl

from randes_cli.live.triton_codes import loaded


@triton.jit
def signs_of(bits, place, mask):
    """±1 by packed bits, as `core.signs` has them: 1 means −1."""
    byte = tl.load(bits + (place >> 3), mask, 0).to(tl.int32)
    return 1.0 - 2.0 * ((byte >> (place & 7).to(tl.int32)) & 1).to(tl.float32)


@triton.jit
def signs_along(bits, place, q, mask):
    """±1 of the places that follow `place` of each unit: 24 bits are read once for all q."""
    at = bits + (place >> 3)
    low, middle = tl.load(at, mask, 0).to(tl.int32), tl.load(at + 1, mask, 0).to(tl.int32)
    window = low | middle << 8 | tl.load(at + 2, mask, 0).to(tl.int32) << 16
    return 1.0 - 2.0 * ((window >> ((place & 7).to(tl.int32) + q)) & 1).to(tl.float32)


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
    height,
    width,
    bits: tl.constexpr,
    per: tl.constexpr,
    unit: tl.constexpr,
    kind: tl.constexpr,
    dtype: tl.constexpr,
    row_block: tl.constexpr,
    unit_block: tl.constexpr,
):
    """out = Θ₀ + (level · column · row) · scale · signs, rounded as the CPU rounds it.

    Rows × units × codes of a unit, so that a unit is loaded once. Signs of rows and of columns
    are multiplied into factors that they have to meet anyway; that rounds nothing.
    """
    units = width // per
    tiles = tl.cdiv(units, unit_block)
    across, along = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    i = (along * row_block + tl.arange(0, row_block))[:, None, None].to(tl.int64)
    k = (across * unit_block + tl.arange(0, unit_block))[None, :, None]
    q = tl.arange(0, per)[None, None, :]
    j = k * per + q
    there, inside = (i < height) & (k < units), k < units
    kept = tl.load(base + i * width + j, there, 0.0).to(tl.float32)
    factor = tl.load(columns + j, inside, 0.0) if bits > 0 else 1.0
    last = scale
    if kind == 1:  # of columns
        factor = factor * signs_along(signs, k * per, q, inside)
    elif kind == 2:  # hankel
        last = scale * signs_along(signs, i + k * per, q, there)
    elif kind == 3:  # of rows, then of columns
        factor = factor * signs_along(signs, height + k * per, q, inside)
        last = scale * signs_of(signs, i, i < height)
    if bits == 0:
        value = tl.load(stored + i * width + j, there, 0).to(tl.float32) * factor
    else:
        word = loaded(stored + (i * units + k) * unit, there, bits, False).to(tl.int32)
        value = tl.load(table + ((word >> (bits * q)) & ((1 << bits) - 1)))
        value = value * factor * tl.load(rows + i, i < height, 0.0)
    made = tl.clamp(value * last + kept, -largest, largest, tl.PropagateNan.ALL)
    tl.store(out + i * width + j, made.to(dtype).to(out.dtype.element_ty), there)
