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
def code_of(step, bits: tl.constexpr):
    """Which code of a unit `level` makes as the step-th: of 2 bits, those of a half by turns."""
    code = step
    if bits == 2:
        code = step // 8 * 8 + step // 2 % 2 * 4 + step // 4 % 2 * 2 + step % 2
    return code


@triton.jit
def level(word, table, q: tl.constexpr, bits: tl.constexpr, text: tl.constexpr, like):
    """A code of each unit, the one that is met as q-th, as its level in the type of `like`.

    With bits 0 it is the integer itself.
    """
    if bits == 0:
        value = word.to(tl.float32).to(like.dtype)
    elif text == "":
        code = (word.to(tl.int32) >> (bits * code_of(q, bits))) & ((1 << bits) - 1)
        value = tl.load(table + code).to(like.dtype)
    elif bits == 1:
        value = eight(word.to(tl.int32), (4 + q // 8) << 8 | q // 8, 0, text, like)[q % 8]
    elif bits == 2:  # half of a word's codes are two bytes of four: the first or last two of each
        half, scale = 0x7362 if q >= 8 else 0x5140, 1 if q & 4 else 16
        value = four(word.to(tl.int32), half, scale, text, like)[q % 4]
    elif bits == 3:
        value = four(word.to(tl.int32), 1 if q >= 4 else 4096, 0, text, like)[q % 4]
    elif bits == 4:
        value = four(word.to(tl.int32), 0x7362 if q >= 4 else 0x5140, 0, text, like)[q % 4]
    else:
        value = one(word.to(tl.int32), 0x7404 | q << 4, 0, text, like)
    return value


@triton.jit
def one(word, a, b, text: tl.constexpr, like):
    """A code of each word as its level, by `machine_code`; `four` and `eight` are as many."""
    return tl.inline_asm_elementwise(
        text, "=r,r,r,r,r,r,r", [word, a, b], like.dtype, is_pure=True, pack=2
    )


@triton.jit
def four(word, a, b, text: tl.constexpr, like):
    return tl.inline_asm_elementwise(
        text,
        "=r,=r,=r,=r,r,r,r,r,r,r",
        [word, a, b],
        (like.dtype, like.dtype, like.dtype, like.dtype),
        is_pure=True,
        pack=2,
    )


@triton.jit
def eight(word, a, b, text: tl.constexpr, like):
    return tl.inline_asm_elementwise(
        text,
        "=r,=r,=r,=r,=r,=r,=r,=r,r,r,r,r,r,r",
        [word, a, b],
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
