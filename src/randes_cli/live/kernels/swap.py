# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The Triton kernel of a swap. `kernels` calls it, and says what its arguments are.

Signs are the top bits of integers, and set by ^: that is exact, as a product with ±1 is.
"""

import triton
import triton.language as tl

from randes_cli.live.kernels.codes import loaded

#: The sign of a float32.
SIGN = tl.constexpr(-(2**31))


@triton.jit
def flipped(number, sign):
    """−number where the top bit of `sign` is set; other bits of it are not 0 by chance."""
    return (number.to(tl.int32, bitcast=True) ^ (sign & SIGN)).to(tl.float32, bitcast=True)


@triton.jit
def signs_of(bits, place, mask):
    """Packed bits, as `core.signs` has them, on top: 1 means −1."""
    return tl.load(bits + (place >> 3), mask, 0).to(tl.int32) << (31 - (place & 7).to(tl.int32))


@triton.jit
def signs_along(bits, place, q, mask):
    """The same of the places that follow `place` of each unit: 16 bits are read once for all q."""
    at = bits + (place >> 3)
    low, high = tl.load(at, mask, 0).to(tl.int32), tl.load(at + 1, mask, 0).to(tl.int32)
    return ((low | high << 8) << (24 - (place & 7).to(tl.int32))) << (7 - q)


@triton.jit
def level(word, table, q, bits: tl.constexpr, text: tl.constexpr):
    """The q-th code of each unit as its level, in float32."""
    if bits == 1:  # all but the sign is that of the first
        value = flipped(tl.load(table) + tl.zeros_like(word << q).to(tl.float32), word << (31 - q))
    elif text == "":
        value = tl.load(table + ((word >> (bits * q)) & ((1 << bits) - 1)))
    else:
        value = tl.inline_asm_elementwise(
            text,
            "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r,r,r,r,r,l,l,l,l,l,l,l,l",
            [word >> (bits * q), table],
            tl.float32,
            is_pure=True,
            pack=8,
        )
    return value


@triton.jit
def narrowed(value, largest, dtype: tl.constexpr, text: tl.constexpr):
    """Rounded; what is beyond the largest number becomes that."""
    if text == "":
        made = tl.clamp(value, -largest, largest, tl.PropagateNan.ALL).to(dtype)
    else:
        kind = value.to(dtype).dtype.scalar
        made = tl.inline_asm_elementwise(text, "=r,r,r", [value], kind, is_pure=True, pack=2)
    return made


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
    level_text: tl.constexpr,
    dtype_text: tl.constexpr,
):
    """out = Θ₀ + (level · column · row) · scale · signs, rounded as the CPU rounds it.

    Rows × units × codes of a unit, so that a unit is loaded once. Signs of rows and of columns
    are set in factors that they have to meet anyway; that rounds nothing.
    """
    units = width // per
    i = (tl.program_id(1) * row_block + tl.arange(0, row_block))[:, None, None].to(tl.int64)
    k = (tl.program_id(0) * unit_block + tl.arange(0, unit_block))[None, :, None]
    q = tl.arange(0, per)[None, None, :]
    j = k * per + q
    there, inside = (i < height) & (k < units), k < units
    kept = tl.load(base + i * width + j, there, 0.0).to(tl.float32)
    factor = tl.load(columns + j, inside, 0.0) if bits > 0 else 1.0 + tl.zeros_like(j)
    last = tl.full((1, 1, 1), scale, tl.float32)
    if kind == 1:  # of columns
        factor = flipped(factor, signs_along(signs, k * per, q, inside))
    elif kind == 2:  # hankel
        last = flipped(last, signs_along(signs, i + k * per, q, there))
    elif kind == 3:  # of rows, then of columns
        factor = flipped(factor, signs_along(signs, height + k * per, q, inside))
        last = flipped(last, signs_of(signs, i, i < height))
    if bits == 0:
        value = tl.load(stored + i * width + j, there, 0).to(tl.float32) * factor
    else:
        at = stored + (i * units + k) * unit
        word = loaded(at, there, bits, False).to(tl.int32)
        if bits == 8:  # a unit is two words
            word = tl.where(q < 4, word, tl.load(at + 1, there, 0))
        value = level(word, table, q % (32 // bits), bits, level_text)
        value = value * factor * tl.load(rows + i, i < height, 0.0)
    made = narrowed(value * last + kept, largest, dtype, dtype_text)
    tl.store(out + i * width + j, made.to(out.dtype.element_ty), there)
