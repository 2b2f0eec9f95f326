"""The PTX that turns codes into levels, run by a few lines of Python here: GPUs are not needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from randes_cli.core.levels import levels
from randes_cli.live.machine_code import KNOWN, text_of

MASK = 2**32 - 1


def prmt(low: int, high: int, selector: int) -> int:
    """Bytes of two words, chosen by nibbles; with its top bit one gives a byte's sign 8 times."""
    both, made = (high << 32 | low).to_bytes(8, "little"), []
    for place in range(4):
        nibble = selector >> 4 * place & 15
        byte = both[nibble & 7]
        made.append((255 if byte & 128 else 0) if nibble & 8 else byte)
    return int.from_bytes(bytes(made), "little")


def lop3(a: int, b: int, c: int, table: int) -> int:
    """A function of three bits, 32 times."""
    places = ((a >> n & 1) << 2 | (b >> n & 1) << 1 | c >> n & 1 for n in range(32))
    return sum((table >> place & 1) << n for n, place in enumerate(places))


RUN: dict[str, Callable[..., int]] = {
    "prmt.b32": prmt,
    "lop3.b32": lop3,
    "mov.b32": lambda a: a,
    "not.b32": lambda a: ~a,
    "and.b32": lambda a, b: a & b,
    "shl.b32": lambda a, b: a << b,
    "shr.u32": lambda a, b: a >> b,
    "sub.u32": lambda a, b: a - b,
    "mad.lo.u32": lambda a, b, c: a * b + c,
}


def outputs(text: str, count: int, inputs: Sequence[int]) -> list[int]:
    """What the code writes to its first `count` operands, from the others."""
    held = {f"${count + number}": value for number, value in enumerate(inputs)}
    for line in re.findall(r"^([a-z].*);", text, re.MULTILINE):
        name, given = line.split(" ", 1)
        target, *words = given.split(", ")
        values = [held[word] if word in held else int(word, 0) for word in words]
        held[target] = RUN[name](*values) & MASK
    return [held[f"${number}"] for number in range(count)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bits", KNOWN)
def test_each_byte_of_two_words_becomes_its_levels(bits: int, dtype: torch.dtype) -> None:
    wanted = torch.from_numpy(levels(bits).astype(np.float32)).to(dtype)
    per, random = 8 // bits, np.random.default_rng(bits)
    for number in range(256):
        words = [int(word) for word in random.integers(0, 2**32, 2)]
        place = number % 4
        words[0] = words[0] & ~(255 << 8 * place) | number << 8 * place
        selector = (4 + place) << (4 if bits == 4 else 8) | place
        made = outputs(text_of(bits, dtype), per, [*words, selector])
        for q, pair in enumerate(made):
            found = torch.tensor([pair & 0xFFFF, pair >> 16], dtype=torch.int32)
            codes = [word >> 8 * place + bits * q & 2**bits - 1 for word in words]
            assert torch.equal(found.to(torch.int16).view(dtype), wanted[codes])


def test_other_widths_and_dtypes_are_looked_up() -> None:
    assert not text_of(3, torch.bfloat16) and not text_of(8, torch.float16)
    assert not text_of(2, torch.float32)
