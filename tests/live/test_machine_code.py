"""The PTX that turns codes into levels, run by a few lines of Python (`machine.py`)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from randes_cli.core.levels import levels
from randes_cli.live.kernels import codes as triton_codes
from randes_cli.live.kernels.machine_code import KNOWN, level_in_lanes, narrowing, text_of
from tests.live.machine import outputs, words


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


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_swap_finds_levels_in_lanes_whatever_is_above_a_code(bits: int) -> None:
    exact = levels(bits).astype(np.float32)
    codes = np.random.default_rng(bits).integers(0, 2**32, (8, 2048))
    found = outputs(level_in_lanes(bits), 8, [*codes, 0], words(exact.view(np.uint32)))
    for got, given in zip(found, codes, strict=True):
        assert np.array_equal(got, exact[given & 2**bits - 1].view(np.uint32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_swap_rounds_to_finite_numbers(dtype: torch.dtype) -> None:
    most, other = torch.finfo(dtype).max, 1 / 3
    given = torch.tensor([[other, -np.inf, 1.01 * most, 1.0], [np.inf, 0.1, -other, -most]])
    (found,) = outputs(narrowing(dtype), 1, [*given.view(torch.int32).numpy()])
    halves = np.stack([found & 0xFFFF, found >> 16]).astype(np.uint16).view(np.int16)
    assert torch.equal(torch.from_numpy(halves).view(dtype), given.clamp(-most, most).to(dtype))
    assert not level_in_lanes(8) and not narrowing(torch.float32)
