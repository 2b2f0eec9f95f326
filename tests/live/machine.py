"""A few instructions of PTX, run by NumPy on many threads at once: GPUs are not needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Words = np.ndarray[Any, np.dtype[np.uint64]]

MASK = np.uint64(2**32 - 1)


def words(values: Any) -> Words:
    made: Words = np.asarray(values).astype(np.int64).astype(np.uint64) & MASK
    return made


def _prmt(low: Words, high: Words, selector: Words) -> Words:
    """Bytes of two words, chosen by nibbles; with its top bit one gives a byte's sign 8 times."""
    pair, made = high << np.uint64(32) | low, words(0)
    for place in range(4):
        nibble = selector >> np.uint64(4 * place) & np.uint64(15)
        byte = pair >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(255)
        sign = (byte >> np.uint64(7)) * np.uint64(255)
        made = made | np.where(nibble & np.uint64(8), sign, byte) << np.uint64(8 * place)
    return made


def _lop3(a: Words, b: Words, c: Words, table: Words) -> Words:
    """A function of three bits, 32 times."""
    made = words(0)
    for place in range(8):
        if int(table) >> place & 1:
            terms = zip((a, b, c), (4, 2, 1), strict=True)
            chosen = [term if place & bit else ~term for term, bit in terms]
            made = made | chosen[0] & chosen[1] & chosen[2]
    return made


def _number(word: Words) -> np.ndarray[Any, np.dtype[np.float32]]:
    made: np.ndarray[Any, np.dtype[np.float32]] = word.astype(np.uint32).view(np.float32)
    return made


def _word(number: Any) -> Words:
    made: Words = np.asarray(number, np.float32).view(np.uint32).astype(np.uint64)
    return made


def _cut_to(dtype: torch.dtype, finite: bool = False) -> Callable[[Words, Words], Words]:
    """Two words of float32 as 16 bits each, the first above the second."""

    def half(word: Words) -> Words:
        number = torch.from_numpy(np.atleast_1d(_number(word)).copy())
        most = torch.finfo(dtype).max
        found = (number.clamp(-most, most) if finite else number).to(dtype)
        made: Words = words(found.view(torch.int16).numpy()) & np.uint64(0xFFFF)
        return made

    return lambda high, low: half(high) << np.uint64(16) | half(low)


def _of_lanes(held: Words, lane: Words, *_: Words) -> Words:
    """What other threads of a warp hold."""
    made: Words = np.take_along_axis(
        held.reshape(-1, 32), (lane.reshape(-1, 32) & np.uint64(31)).astype(np.int64), 1
    ).reshape(-1)
    return made


_RUN: dict[str, Callable[..., Words]] = {
    "prmt.b32": _prmt,
    "lop3.b32": _lop3,
    "mov.u32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "xor.b32": lambda a, b: a ^ b,
    "shl.b32": lambda a, b: a << b,
    "shr.u32": lambda a, b: a >> b,
    "add.u32": lambda a, b: a + b,
    "mul.lo.u32": lambda a, b: a * b,
    "mul.hi.u32": lambda a, b: a * b >> np.uint64(32),
    "abs.f32": lambda a: a & MASK >> np.uint64(1),
    "add.rn.f32": lambda a, b: _word(_number(a) + _number(b)),
    "sub.rn.f32": lambda a, b: _word(_number(a) - _number(b)),
    "lg2.approx.ftz.f32": lambda a: _word(np.log2(_number(a))),
    "fma.rn.f32": lambda a, b, c: _word(
        _number(a).astype(np.float64) * _number(b) + _number(c).astype(np.float64)
    ),
    "cvt.rn.bf16x2.f32": _cut_to(torch.bfloat16),
    "cvt.rn.f16x2.f32": _cut_to(torch.float16),
    "cvt.rn.satfinite.bf16x2.f32": _cut_to(torch.bfloat16, True),
    "cvt.rn.satfinite.f16x2.f32": _cut_to(torch.float16, True),
    "mad.wide.u32": lambda a, b, c: a * b + c,
    "shfl.sync.idx.b32": _of_lanes,
}


def outputs(
    text: str, count: int, inputs: Sequence[Any], memory: Words | None = None
) -> list[Words]:
    """What the code writes to its first `count` operands, from the others and from memory."""
    held = {f"${count + place}": words(value) for place, value in enumerate(inputs)}
    held |= {
        "%lanemask_lt": words(0x7FFFFFFF),
        "%laneid": words(np.arange(np.size(inputs[0])) % 32),
    }
    run = dict(_RUN)
    if memory is not None:
        run["ld.global.nc.b32"] = lambda at: memory[at.astype(np.int64) // 4]
    for line in re.findall(r"^([a-z].*);", text, re.MULTILINE):
        name, given = line.split(" ", 1)
        target, *names = given.replace("[", "").replace("]", "").split(", ")
        held[target] = run[name](*[held[n] if n in held else _value(n) for n in names]) & MASK
    return [held[f"${place}"] for place in range(count)]


def _value(text: str) -> Words:
    return words(int(text[2:], 16) if text.startswith("0f") else int(text, 0))
