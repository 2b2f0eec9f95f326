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

#: Bits of a unit, and codes that it has, where these are not 32 and as many.
UNITS = {1: (16, 16), 3: (24, 8)}


class Pair:
    """Two words as a tensor of a kernel."""

    def __init__(self, words: Any) -> None:
        self.words = words

    def to(self, _: object) -> Pair:
        return self


def running(count: int) -> Callable[..., Any]:
    """What runs the code of two words where a kernel has it inlined."""

    def run(word: Pair, a: int, b: int, text: str, _: object) -> Any:
        made = outputs(text, count, [*word.words, a, a, b, b])
        return made[0] if count == 1 else made

    return run


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bits", KNOWN)
def test_each_code_of_two_words_becomes_its_level(
    bits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("one", 1), ("four", 4), ("eight", 8)):
        monkeypatch.setattr(triton_codes, name, running(count))
    exact = torch.from_numpy(levels(bits).astype(np.float32))
    size, per = UNITS.get(bits, (32, 32 // bits))
    words = np.random.default_rng(bits).integers(0, 2**size, (2, 2048))
    level: Any = triton_codes.level.fn
    code_of: Any = triton_codes.code_of.fn
    for q in range(per):
        both = level(Pair(words), None, q, bits, text_of(bits, dtype), SimpleNamespace(dtype=dtype))
        for found, word in zip((both & 0xFFFF, both >> 16), words, strict=True):
            got = torch.from_numpy(found.astype(np.uint16).view(np.int16)).view(dtype)
            right = exact[word >> bits * code_of(q, bits) & 2**bits - 1]
            if bits < 8:
                assert torch.equal(got, right.to(dtype))
            else:  # a curve near the levels, rounded once
                error = (got.float() / right - 1).abs().max()
                assert error <= torch.finfo(dtype).eps / 2 + 2e-4


def test_other_dtypes_are_looked_up() -> None:
    assert not text_of(0, torch.bfloat16) and not text_of(2, torch.float32)
