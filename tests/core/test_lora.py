"""Sums of low-rank updates: integers that float64 holds, whatever the rank."""

from __future__ import annotations

import pytest

from randes_cli.core.lora import factor_bits


@pytest.mark.parametrize("rank", [1, 2, 3, 16, 17, 500])
def test_factors_have_as_many_bits_as_keep_sums_of_their_products_exact(rank: int) -> None:
    bits = factor_bits(rank)
    assert rank * 4**bits <= 2**53 < rank * 4 ** (bits + 1)
