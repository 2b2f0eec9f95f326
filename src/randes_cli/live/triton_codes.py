# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""Packed codes inside Triton kernels: units of them as integers, and their levels."""

import triton
import triton.language as tl


@triton.jit
def loaded(codes, inside, bits: tl.constexpr, whole: tl.constexpr):
    """Units of codes as integers."""
    word = tl.load(codes) if whole else tl.load(codes, inside, 0)
    if bits == 3:
        middle, high = tl.load(codes + 1, inside, 0), tl.load(codes + 2, inside, 0)
        word = word.to(tl.int32) | middle.to(tl.int32) << 8 | high.to(tl.int32) << 16
    return word


@triton.jit
def level(word, table, q: tl.constexpr, bits: tl.constexpr, text: tl.constexpr, like):
    """Code q of each unit as its level in the type of `like` (bits 0: the integer itself)."""
    if bits == 0:
        value = word.to(tl.float32).to(like.dtype)
    elif text == "":
        code = (word.to(tl.int32) >> (bits * q)) & ((1 << bits) - 1)
        value = tl.load(table + code).to(like.dtype)
    else:
        per: tl.constexpr = 8 // bits
        value = levels_of_byte(word.to(tl.int32), q // per, bits, text, like)[q % per]
    return value


@triton.jit
def levels_of_byte(word, j: tl.constexpr, bits: tl.constexpr, text: tl.constexpr, like):
    """The codes of byte j of each word as levels, by `machine_code`."""
    if bits == 1:
        found = tl.inline_asm_elementwise(
            text,
            "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r",
            [word, (4 + j) << 8 | j],
            (
                like.dtype,
                like.dtype,
                like.dtype,
                like.dtype,
                like.dtype,
                like.dtype,
                like.dtype,
                like.dtype,
            ),
            is_pure=True,
            pack=2,
        )
    elif bits == 2:
        found = tl.inline_asm_elementwise(
            text,
            "=r,=r,=r,=r,r,r,r,r",
            [word, (4 + j) << 8 | j],
            (like.dtype, like.dtype, like.dtype, like.dtype),
            is_pure=True,
            pack=2,
        )
    else:
        found = tl.inline_asm_elementwise(
            text,
            "=r,=r,r,r,r,r",
            [word, (4 + j) << 4 | j],
            (like.dtype, like.dtype),
            is_pure=True,
            pack=2,
        )
    return found
