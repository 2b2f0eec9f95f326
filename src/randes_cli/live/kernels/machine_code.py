"""PTX that turns packed codes into 16-bit levels, four bytes of them at a time, for Triton.

A table that is looked up in memory costs several times what these few operations do. Operands:
for each code of a byte, in order, two outputs (of the first two bytes and of the last two); then
the four bytes in a register. With 3 bits words of eight codes are met two at a time: outputs of
four codes, each of both words; then twice the words and what says which four codes.

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
#: Two of a 16-bit dtype, as PTX names them.
_PAIRS = {torch.bfloat16: "bf16x2", torch.float16: "f16x2"}
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


@lru_cache(maxsize=16)
def level_in_lanes(bits: int) -> str:
    """The code for levels of 8 codes in float32: lanes hold the table, whatever is above a code.

    Operands: eight outputs, the codes, and the table's address as often. Empty: there is none.
    """
    if bits not in (2, 3, 4):
        return ""
    held = [
        ".reg .b32 n, t;",
        ".reg .b64 a;",
        "mov.u32 n, %laneid;",
        f"and.b32 n, n, {2**bits - 1};",
    ]
    held += ["mad.wide.u32 a, n, 4, $16;", "ld.global.nc.b32 t, [a];"]
    taken = [f"shfl.sync.idx.b32 ${n}, t, ${8 + n}, 31, -1;" for n in range(8)]
    return "\n".join(["{", *held, *taken, "}"])


def narrowing(dtype: torch.dtype) -> str:
    """The code that rounds two float32 to a 16-bit dtype's finite numbers; empty for others."""
    kind = _PAIRS.get(dtype)
    return f"cvt.rn.satfinite.{kind}.f32 $0, $2, $1;" if kind else ""


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


def _one() -> list[str]:
    """±c: the code is the sign's opposite."""
    made = []
    for pair, taken in enumerate(("0x0100", "0x0302")):  # a byte at the foot of each half
        made.append(f"prmt.b32 b, $16, $16, {taken};")
        for q in range(8):
            made += [
                f"shl.b32 v, b, {15 - q};",
                f"lop3.b32 ${2 * q + pair}, v, 0x80008000, c0, 0x6a;",
            ]
    return made


def _two() -> list[str]:
    """`prmt` looks up both bytes of two levels at once, by a code's nibble twice."""
    made = []
    for q in range(4):
        word = "$8" if q == 3 else "v"
        made += [] if q == 3 else [f"mul.lo.u32 v, $8, {1 << 6 - 2 * q};"]
        made.append(f"lop3.b32 w, {word}, c2, {hex(_OTHER)}, 0xea;")
        for pair in range(2):  # down to the lowest bits of the selector, and 4 bits higher
            made += [
                f"mul.hi.u32 s, w, {hex(0x11 << 26 - 16 * pair)};",
                f"prmt.b32 ${2 * q + pair}, c0, c1, s;",
            ]
    return made


def _looked_up(outputs: tuple[int, int], signs: tuple[str, ...] = ()) -> list[str]:
    """By the low four nibbles of v, patterns of c0 to c3: of the even and of the odd ones."""
    first, second = outputs
    made = ["prmt.b32 h, c0, c1, v;", "prmt.b32 l, c2, c3, v;"]
    paired = [f"prmt.b32 ${first}, l, h, 0x6240;", f"prmt.b32 ${second}, l, h, 0x7351;"]
    return [*made, *signs, *paired]


def _three() -> list[str]:
    """Four codes of two words are dealt to nibbles. Given: 2^12 or 1, for the first or the last."""
    made = []
    for target, word in (("b", "$4"), ("n", "$5")):
        made += [
            f"mul.lo.u32 w, {word}, $6;",
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
        *_looked_up((0, 1)),
        "mul.hi.u32 v, v, 0x10000;",
        *_looked_up((2, 3)),
    ]


def _four() -> list[str]:
    """Magnitudes are looked up, those of lower codes from behind; then signs are set."""
    signs = ("prmt.b32 s, c4, c4, n;", "xor.b32 h, h, s;")
    return [
        "mul.hi.u32 n, $4, 0x20000000;",
        "lop3.b32 n, n, 0x11111111, n, 0x0c;",  # 1 where it is negative
        "mul.lo.u32 v, n, 7;",
        "lop3.b32 v, $4, 0x77777777, v, 0x6a;",  # which magnitude
        *_looked_up((0, 2), signs),
        "mul.hi.u32 n, n, 0x10000;",
        "mul.hi.u32 v, v, 0x10000;",
        *_looked_up((1, 3), signs),
    ]


def _eight(dtype: torch.dtype) -> list[str]:
    """A byte's code, as it is, is put into 2^15 and as much in float32."""
    made = []
    for byte in range(4):
        target = "lh"[byte % 2]
        made += [
            f"prmt.b32 b, $2, c0, {hex(0x7404 | byte << 4)};",
            f"add.rn.f32 b, b, {_float(-(2.0**15) - 127.5)};",
            "abs.f32 v, b;",
            "sub.rn.f32 v, c1, v;",
            "lg2.approx.ftz.f32 v, v;",
            f"fma.rn.f32 v, v, {_float(-_LOG)}, c2;",
            f"lop3.b32 {target}, b, 0x80000000, v, 0x6a;",
        ]
        if target == "h":
            made.append(f"cvt.rn.{_PAIRS[dtype]}.f32 ${byte // 2}, h, l;")
    return made


def _bits_of(value: float) -> str:
    return struct.pack(">f", value).hex()


def _float(value: float) -> str:
    return "0f" + _bits_of(value)
