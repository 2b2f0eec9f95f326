"""PTX that turns packed codes into 16-bit levels, two words at a time, for Triton.

A table that is looked up in memory costs several times what these few operations do. Operands:
outputs (codes of one byte, in order; each is a pair, of the first word and of the second), the
two words, and what `prmt` takes that byte of both by.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from randes_cli.core.levels import levels

#: Widths that there is code for; the others are looked up.
KNOWN = (1, 2, 4)


@lru_cache(maxsize=16)
def text_of(bits: int, dtype: torch.dtype) -> str:
    """The code for codes of `bits` as levels of a 16-bit dtype; empty where there is none."""
    if bits not in KNOWN or dtype not in (torch.bfloat16, torch.float16):
        return ""
    patterns = torch.from_numpy(levels(bits).astype(np.float32)).to(dtype).view(torch.int16)
    positive = [int(value) for value in patterns[len(patterns) // 2 :]]
    lines = {1: _one, 2: _two, 4: _four}[bits](positive)
    registers = ".reg .b32 b, v, s, n, h, l;"
    return "{\n" + "\n".join([registers, *lines]) + "\n}"


def _both(pattern: int) -> str:
    return hex(pattern << 16 | pattern)


def _one(positive: list[int]) -> list[str]:
    """±c: the code is the sign's opposite."""
    made = ["prmt.b32 b, $8, $9, $10;"]
    for q in range(8):
        made += [
            f"shl.b32 v, b, {15 - q};",
            f"lop3.b32 ${q}, v, 0x80008000, {_both(positive[0] | 0x8000)}, 0x6a;",
        ]
    return made


def _two(positive: list[int]) -> list[str]:
    """The upper bit is the sign's opposite; both bits are equal in the outer levels."""
    inner, outer = positive
    made = [
        "prmt.b32 b, $4, $5, $6;",
        "not.b32 v, b;",
        "shr.u32 v, v, 1;",
        "lop3.b32 b, v, 0x00550055, b, 0x6a;",
    ]
    for q in range(4):
        made += [
            f"shr.u32 v, b, {2 * q};",
            "and.b32 v, v, 0x00010001;",
            f"mad.lo.u32 v, v, {outer - inner}, {_both(inner | 0x8000)};",
            f"shl.b32 s, b, {14 - 2 * q};",
            f"lop3.b32 ${q}, s, 0x80008000, v, 0x6a;",
        ]
    return made


def _four(positive: list[int]) -> list[str]:
    """Eight magnitudes, low and high bytes, are looked up in registers; then signs are set."""

    def word(shift: int, first: int) -> str:
        chosen = positive[first : first + 4]
        return hex(sum((value >> shift & 255) << 8 * n for n, value in enumerate(chosen)))

    return [
        "prmt.b32 b, $2, $3, $4;",
        "not.b32 n, b;",
        "and.b32 n, n, 0x8888;",  # negative
        "shr.u32 s, n, 3;",
        "sub.u32 s, n, s;",
        "lop3.b32 v, b, 0x7777, s, 0x6a;",  # which magnitude
        f"mov.b32 h, {word(8, 0)};",
        f"mov.b32 s, {word(8, 4)};",
        "prmt.b32 h, h, s, v;",
        f"mov.b32 l, {word(0, 0)};",
        f"mov.b32 s, {word(0, 4)};",
        "prmt.b32 l, l, s, v;",
        "mov.b32 s, 0x80808080;",  # a selector with its top bit set gives the byte's sign, 8 times
        "prmt.b32 s, s, s, n;",
        "shl.b32 s, s, 1;",
        "lop3.b32 h, s, 0x80808080, h, 0x6a;",
        "prmt.b32 $0, l, h, 0x6240;",
        "prmt.b32 $1, l, h, 0x7351;",
    ]
