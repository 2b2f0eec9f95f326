"""Sums of squares and what rounding leaves, retrieval and saturation, whatever the kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.kernel import (
    Added,
    sum_of_squares,
)
from randes_cli.specs import ITEM_SIZE, Signs
from tests.core.kernels import (
    KERNELS,
    both,
    plain,
    slow_energy,
    stored,
    superpose,
    values_of,
    windows,
)


@both
@pytest.mark.parametrize("exponent", [-18, -9, -3, 8])
def test_what_rounding_leaves_is_summed_exactly_however_small_the_delta(
    kind: str, exponent: int
) -> None:
    source = np.random.default_rng(5)
    task = source.normal(size=20_011) * source.choice([1e-6, 1e-3, 1e-2], 20_011)
    raw, zeros = stored(task, "F32"), np.zeros(4 * len(task), np.uint8)
    scale = 2.0**-exponent
    kernel = KERNELS[kind](len(task), 1)
    _, _, added = superpose(kernel, zeros, "F32", [raw], "F32", [plain(1, len(task), scale)])
    assert added == [Added(slow_energy(values_of(raw, "F32"), exponent), True)]


@both
def test_changed_gives_the_largest_difference(kind: str) -> None:
    kernel = KERNELS[kind](4, 2)
    kernel.set_base(1, np.array([1, 2, 3], np.float32).view(np.uint8), "F32", 3)
    assert kernel.changed(1, np.array([1, -5, 3.5], np.float32).view(np.uint8), "F32") == 7.0
    assert kernel.changed(1, np.array([1, 2, 3], np.float32).view(np.uint8), "F32") == 0.0


@given(
    st.lists(st.integers(-32767, 32767), max_size=1500),
    st.lists(st.integers(-300, 300), max_size=1200),
)
def test_sums_of_squares_are_exact_for_light_and_heavy_values(
    heavy: list[int], light: list[int]
) -> None:
    units = np.array(light + heavy, np.float32)
    assert sum_of_squares(units, np.empty_like(units)) == sum(v * v for v in light + heavy)


@pytest.mark.parametrize("value", [181, 182, 256, 4096, 32767])
@pytest.mark.parametrize("count", [511, 512, 513, 70_000])
def test_sums_of_squares_are_exact_at_the_edge_of_float32(value: int, count: int) -> None:
    units = np.full(count, value, np.float32)
    assert sum_of_squares(units, np.empty_like(units)) == count * value**2


@both
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("bits", [16, 8])
def test_retrieval_is_the_base_plus_scaled_signs_times_integers(
    kind: str, dtype: str, bits: int
) -> None:
    source = np.random.default_rng(8)
    codes = source.integers(-120, 120, 30).astype(np.int16 if bits == 16 else np.int8)
    base = source.normal(size=30).astype(np.float32)
    pattern = windows(Signs.hankel, 1, 5, 6, 0.7 * 2.0**-8)[0]
    out = np.empty(30 * ITEM_SIZE[dtype], np.uint8)
    kernel = KERNELS[kind](32, 1)
    kernel.set_base(0, base.view(np.uint8), "F32", 30)
    assert kernel.retrieve(codes.view(np.uint8), bits, pattern, dtype, out) == 0
    values = base + codes.astype(np.float32) * pattern.values().reshape(-1)
    assert np.array_equal(out, stored(values, dtype))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_both_kernels_saturate_alike(dtype: str) -> None:
    base = np.array([3e38, -3e38, 449, 470, -500, 65519, 65520, 60000, 61440], np.float32)
    found = []
    for maker in KERNELS.values():
        kernel, out = maker(16, 1), np.empty(9 * ITEM_SIZE[dtype], np.uint8)
        kernel.set_base(0, base.view(np.uint8), "F32", 9)
        codes = np.full(9, 100, np.int16).view(np.uint8)
        count = kernel.retrieve(codes, 16, plain(1, 9, 1e36), dtype, out)
        found.append((count, out.tobytes()))
        count = kernel.retrieve(codes, 16, plain(1, 9, 0.0), dtype, out)
        found.append((count, out.tobytes()))
    assert all(found[:2] == found[at : at + 2] for at in range(2, len(found), 2))
