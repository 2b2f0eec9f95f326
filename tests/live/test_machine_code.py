"""The PTX that turns codes into levels, run by a few lines of Python (`machine.py`)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli.core.levels import levels
from randes_cli.live import triton_codes
from randes_cli.live.machine_code import KNOWN, text_of
from tests.live.machine import outputs


class Words:
    """Four bytes, or two words of 24 bits, as a tensor of a kernel."""

    def __init__(self, words: Any) -> None:
        self.words = words


def running(count: int) -> Callable[..., Any]:
    """What runs the code of four bytes where a kernel has it inlined."""

    def run(word: Words, text: str, _: object) -> Any:
        made = outputs(text, 2 * count, [word.words])
        both: list[Any] = [made[2 * q] | made[2 * q + 1] << 32 for q in range(count)]
        return both[0] if count == 1 else both

    return run


def some(word: Words, which: int, text: str, _: object) -> Any:
    return outputs(text, 4, [*word.words, which, which])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bits", KNOWN)
def test_each_code_of_a_unit_becomes_its_level(
    bits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("one", 1), ("two", 2), ("four", 4), ("eight", 8)):
        monkeypatch.setattr(triton_codes, name, running(count))
    monkeypatch.setattr(triton_codes, "some", some)
    exact = torch.from_numpy(levels(bits).astype(np.float32))
    size, count = (24, 2) if bits == 3 else (8, 4)
    units = np.random.default_rng(bits).integers(0, 2**size, (count, 2048))
    word = Words(units) if bits == 3 else Words(sum(u << 8 * n for n, u in enumerate(units)))
    level: Any = triton_codes.level.fn
    for q in range(size // bits):
        all_of_them = level(word, None, q, bits, text_of(bits, dtype), SimpleNamespace(dtype=dtype))
        for n, unit in enumerate(units):
            found = all_of_them >> 16 * n & 0xFFFF
            got = torch.from_numpy(found.astype(np.uint16).view(np.int16)).view(dtype)
            right = exact[unit >> bits * q & 2**bits - 1]
            if bits < 8:
                assert torch.equal(got, right.to(dtype))
            else:  # a curve near the levels, rounded once
                error = (got.float() / right - 1).abs().max()
                assert error <= torch.finfo(dtype).eps / 2 + 2e-4


def test_other_dtypes_are_looked_up() -> None:
    assert not text_of(0, torch.bfloat16) and not text_of(2, torch.float32)
