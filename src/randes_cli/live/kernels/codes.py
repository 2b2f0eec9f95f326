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
    """The q-th code of each unit as its level, in the type of `like`.

    With bits 0 it is the integer itself.
    """
    if bits == 0:
        value = word.to(tl.float32).to(like.dtype)
    elif text == "":
        code = (word.to(tl.int32) >> (bits * q)) & ((1 << bits) - 1)
        value = tl.load(table + code).to(like.dtype)
    elif bits == 1:
        value = eight(word, text, like)[q]
    elif bits == 2:
        value = four(word, text, like)[q]
    elif bits == 3:
        value = some(word, 1 if q >= 4 else 4096, text, like)[q % 4]
    elif bits == 4:
        value = two(word, text, like)[q]
    else:
        value = one(word, text, like)
    return value


@triton.jit
def one(word, text: tl.constexpr, like):
    """The code of each byte as its level, by `machine_code`; `two`, `four`, `eight` are as many."""
    return tl.inline_asm_elementwise(text, "=r,=r,r", [word], like.dtype, is_pure=True, pack=4)


@triton.jit
def two(word, text: tl.constexpr, like):
    return tl.inline_asm_elementwise(
        text, "=r,=r,=r,=r,r", [word], (like.dtype, like.dtype), is_pure=True, pack=4
    )


@triton.jit
def four(word, text: tl.constexpr, like):
    return tl.inline_asm_elementwise(
        text,
        "=r,=r,=r,=r,=r,=r,=r,=r,r",
        [word],
        (like.dtype, like.dtype, like.dtype, like.dtype),
        is_pure=True,
        pack=4,
    )


@triton.jit
def eight(word, text: tl.constexpr, like):
    return tl.inline_asm_elementwise(
        text,
        "=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,=r,r",
        [word],
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
        pack=4,
    )


@triton.jit
def some(word, which, text: tl.constexpr, like):
    """Four codes of 3 bits of each word."""
    return tl.inline_asm_elementwise(
        text,
        "=r,=r,=r,=r,r,r,r,r",
        [word, which],
        (like.dtype, like.dtype, like.dtype, like.dtype),
        is_pure=True,
        pack=2,
    )
