"""PTX that turns packed codes into 16-bit levels, two words at a time, for Triton.

A table that is looked up in memory costs several times what these few operations do. Operands:
outputs (some codes of a word, in order; each is a pair, of the first word and of the second); then,
each twice, the words and two numbers that say which codes (`triton_codes.level` has them).

What binds are operations on bits, `prmt` and `lop3`, at half the rate at which instructions are
issued. So shifts are products, which another unit makes beside them. Constants are held in
registers: a sum with a zero that ptxas does not see through (the top bit of the lanes below this
one); what it knows to be constant it makes anew for each use, by an instruction.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np
import torch

from randes_cli.core.levels import levels

#: Widths that there is code for.
KNOWN = (1, 2, 3, 4, 8)
#: With 8 bits a level is _LAST − _LOG · log2(_END − u), u its code's distance from the middle,
#: 127.5: within 0.02 %, a tenth of what bfloat16 rounds it by.
_END, _LOG, _LAST = 128.55847, 1.4700145, 10.299321

#: Times 17 it has 4 in every other nibble from bit 6 on, and it leaves out the highest two bits of
#: each byte: with codes there, the product has every code twice, in nibbles that differ by 4.
_OTHER = 0x0F1E2D3D


@lru_cache(maxsize=16)
def text_of(bits: int, dtype: torch.dtype) -> str:
    """The code for codes of `bits` as levels of a 16-bit dtype; empty where there is none."""
    if bits not in KNOWN or dtype not in (torch.bfloat16, torch.float16):
        return ""
    made = {1: _one, 2: _two, 3: _three, 4: _four}
    lines = made[bits]() if bits in made else _eight(dtype)
    held = ["mov.u32 b, %lanemask_lt;", "shr.u32 b, b, 31;"]
    held += [f"add.u32 c{n}, b, {hex(value)};" for n, value in enumerate(_constants(bits, dtype))]
    return "\n".join(["{", ".reg .b32 b, n, v, w, s, h, l, c<5>;", *held, *lines, "}"])


def _constants(bits: int, dtype: torch.dtype) -> list[int]:
    """c0 to c4 of the code, as far as it has them."""
    if bits == 8:
        return [int(_bits_of(number), 16) for number in (2.0**15, _END, _LAST)]
    patterns = torch.from_numpy(levels(bits).astype(np.float32)).to(dtype).view(torch.int16)
    every = [int(value) & 0xFFFF for value in patterns]
    if bits == 1:
        return [every[0] << 16 | every[0]]
    looked_up = every[8:] if bits == 4 else every
    high, low = ([value >> shift & 255 for value in looked_up] for shift in (8, 0))
    tables = [high[:4], high[4:], low[:4], low[4:]] if bits > 2 else [high, low, [0xC0] * 4, []]
    return [sum(byte << 8 * n for n, byte in enumerate(table)) for table in tables] + [0x8000]


def _names(outputs: int) -> tuple[str, ...]:
    """Words, numbers, constants."""
    return (*(f"${outputs + n}" for n in (0, 1, 2, 4)), *(f"c{n}" for n in range(5)))


def _one() -> list[str]:
    """±c: the code is the sign's opposite. Given: what `prmt` takes a byte of both words by."""
    first, second, taken, _, negative, *_ = _names(8)
    made = [f"prmt.b32 b, {first}, {second}, {taken};"]
    for q in range(8):
        made += [f"shl.b32 v, b, {15 - q};", f"lop3.b32 ${q}, v, 0x80008000, {negative}, 0x6a;"]
    return made


def _two() -> list[str]:
    """`prmt` looks up both bytes of both levels at once, by a code's nibble twice.

    Given: what takes two bytes of both words, and 16 or 1: the first or the last two codes of each.
    """
    first, second, taken, scale, high, low, mask, *_ = _names(4)
    made = [f"prmt.b32 b, {first}, {second}, {taken};", f"mul.lo.u32 b, b, {scale};"]
    for q, word in enumerate("vb"):
        if not q:
            made.append("mul.lo.u32 v, b, 4;")
        made.append(f"lop3.b32 w, {word}, {mask}, {hex(_OTHER)}, 0xea;")
        for byte in range(2):  # down to the lowest bits of the selector, and 4 bits higher
            made += [
                f"mul.hi.u32 s, w, {hex(0x11 << 26 - 16 * byte)};",
                f"prmt.b32 ${2 * byte + q}, {high}, {low}, s;",
            ]
    return made


def _looked_up(first: int, tables: tuple[str, ...], signs: tuple[str, ...] = ()) -> list[str]:
    """Two codes of both words, by the low four nibbles of v among eight patterns, to outputs."""
    made = [
        "prmt.b32 h, {}, {}, v;".format(*tables[:2]),
        "prmt.b32 l, {}, {}, v;".format(*tables[2:]),
    ]
    paired = [f"prmt.b32 ${first}, l, h, 0x6240;", f"prmt.b32 ${first + 1}, l, h, 0x7351;"]
    return [*made, *signs, *paired]


def _three() -> list[str]:
    """Four codes of each word are dealt to nibbles. Given: 2^12 or 1, for the first or the last."""
    first, second, scale, _, *tables = _names(4)[:8]
    made = []
    for target, word in (("b", first), ("n", second)):
        made += [
            f"mul.lo.u32 w, {word}, {scale};",
            "mul.hi.u32 v, w, 0x100000;",
            "and.b32 v, v, 0x3f;",
            "mul.hi.u32 w, w, 0x400000;",
            f"lop3.b32 {target}, w, 0x3f00, v, 0xea;",
        ]
    return [
        *made,
        "prmt.b32 b, b, n, 0x5140;",
        "and.b32 v, b, 0x07070707;",
        "mul.lo.u32 w, b, 2;",
        "lop3.b32 v, w, 0x70707070, v, 0xea;",
        *_looked_up(0, tuple(tables)),
        "mul.hi.u32 v, v, 0x10000;",
        *_looked_up(2, tuple(tables)),
    ]


def _four() -> list[str]:
    """Magnitudes are looked up, those of the lower half of codes from behind; then signs are set.

    Given: what takes two bytes of both words.
    """
    first, second, taken, _, *tables, sign = _names(4)
    signs = (f"prmt.b32 s, {sign}, {sign}, n;", "xor.b32 h, h, s;")
    return [
        f"prmt.b32 b, {first}, {second}, {taken};",
        "mul.hi.u32 n, b, 0x20000000;",
        "lop3.b32 n, n, 0x11111111, n, 0x0c;",  # 1 where it is negative
        "mul.lo.u32 v, n, 7;",
        "lop3.b32 v, b, 0x77777777, v, 0x6a;",  # which magnitude
        *_looked_up(0, tuple(tables), signs),
        "mul.hi.u32 n, n, 0x10000;",
        "mul.hi.u32 v, v, 0x10000;",
        *_looked_up(2, tuple(tables), signs),
    ]


def _eight(dtype: torch.dtype) -> list[str]:
    """One code of each word. Given: what takes a byte, and makes it 2^15 and as much in float32."""
    first, second, taken, _, power, end, last, *_ = _names(1)
    made = []
    for target, word in (("h", first), ("l", second)):
        made += [
            f"prmt.b32 b, {word}, {power}, {taken};",
            f"add.rn.f32 b, b, {_float(-(2.0**15) - 127.5)};",
            "abs.f32 v, b;",
            f"sub.rn.f32 v, {end}, v;",
            "lg2.approx.ftz.f32 v, v;",
            f"fma.rn.f32 v, v, {_float(-_LOG)}, {last};",
            f"lop3.b32 {target}, b, 0x80000000, v, 0x6a;",
        ]
    kind = {torch.bfloat16: "bf16x2", torch.float16: "f16x2"}[dtype]
    return [*made, f"cvt.rn.{kind}.f32 $0, l, h;"]


def _bits_of(value: float) -> str:
    return struct.pack(">f", value).hex()


def _float(value: float) -> str:
    return "0f" + _bits_of(value)
