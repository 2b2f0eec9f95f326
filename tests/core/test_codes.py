"""Packed codes against slow oracles, and their levels computed anew."""

from __future__ import annotations

from itertools import pairwise
from math import erfc, exp, inf, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.codes import (
    decode,
    encode,
    fit_scales,
    inverse_scales,
    multiply_scales,
    pack_codes,
    packed_bytes,
)
from randes_cli.core.levels import DISTORTION, SEAL_BITS, gain, levels, thresholds

BITS = st.sampled_from(SEAL_BITS)


def density(x: float) -> float:
    return exp(-x * x / 2) / sqrt(2 * pi)


def tail(x: float) -> float:
    return erfc(x / sqrt(2)) / 2


def gaussian_cell(low: float, high: float) -> tuple[float, float, float]:
    """Mass, first and second moment of a standard Gaussian between two points above zero."""
    mass, first = tail(low) - tail(high), density(low) - density(high)
    end = 0.0 if high == inf else high * density(high)
    return mass, first, mass + low * density(low) - end


def laplace_mean(low: float, high: float) -> float:
    """Mean of a Laplace variable of unit variance between two points above zero."""
    rate = sqrt(2.0)
    if high == inf:
        return low + 1 / rate
    width = high - low
    return low + 1 / rate - width / (exp(rate * width) - 1)


def cells(positive: list[float]) -> list[tuple[float, float]]:
    inner = [(a + b) / 2 for a, b in pairwise(positive)]
    return list(zip([0.0, *inner], [*inner, inf], strict=True))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_are_the_means_of_their_gaussian_cells(bits: int) -> None:
    positive = levels(bits)[2 ** (bits - 1) :].astype(float).tolist()
    for level, (low, high) in zip(positive, cells(positive), strict=True):
        mass, first, _ = gaussian_cell(low, high)
        assert level == pytest.approx(first / mass, abs=3e-6)


def test_levels_of_eight_bits_are_the_means_of_their_laplace_cells() -> None:
    positive = levels(8)[128:].astype(float).tolist()
    for level, (low, high) in zip(positive, cells(positive), strict=True):
        assert level == pytest.approx(laplace_mean(low, high), rel=2e-4)


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_the_distortion_is_that_of_a_standard_gaussian(bits: int) -> None:
    positive = levels(bits)[2 ** (bits - 1) :].astype(float).tolist()
    error = 0.0
    for level, (low, high) in zip(positive, cells(positive), strict=True):
        mass, first, second = gaussian_cell(low, high)
        error += 2 * (second - 2 * level * first + level**2 * mass)
    assert DISTORTION[bits] == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_levels_rise_and_mirror(bits: int) -> None:
    found = levels(bits)
    assert len(found) == 2**bits
    assert np.array_equal(found, -found[::-1])
    assert (np.diff(found) > 0).all()


def slow_codes(packed: bytes, bits: int, count: int) -> list[int]:
    """Codes bit by bit: code i fills bits i·k and on, least significant first."""
    whole = int.from_bytes(packed, "little")
    return [whole >> (bits * place) & (2**bits - 1) for place in range(count)]


@given(BITS, st.integers(0, 100), st.integers(0, 2**32))
def test_codes_round_trip_and_lie_where_the_document_says(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.uint8)
    packed = pack_codes(codes, bits)
    assert len(packed) == packed_bytes(count, bits)
    assert slow_codes(packed.tobytes(), bits, count) == codes.tolist()
    out = np.empty(-(-count // 8) * 8, np.float32)
    decode(packed, bits, out)
    assert np.array_equal(out[:count], levels(bits)[codes])


@given(BITS, st.integers(0, 2**32))
def test_encoding_takes_the_nearest_level(bits: int, seed: int) -> None:
    values = (4 * np.random.default_rng(seed).standard_normal(200)).astype(np.float32)
    limits = thresholds(bits)
    more = [limits, np.nextafter(limits, np.float32(9)), np.nextafter(limits, np.float32(-9))]
    values = np.concatenate([values, *more, np.array([0, 1e9, -1e9, 12, -12], np.float32)])
    slow = [sum(bool(value > limit) for limit in limits) for value in values]
    assert encode(values, bits).tolist() == slow


@given(st.integers(1, 7), st.integers(1, 9), st.data())
def test_scales_of_any_run_are_those_of_the_whole(
    rows: int, cols: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, rows * cols - 1))
    count = data.draw(st.integers(1, rows * cols - start))
    random = np.random.default_rng(rows * 100 + cols)
    values, along, across = (
        random.standard_normal(size).astype(np.float32) for size in (rows * cols, rows, cols)
    )
    whole = (values.reshape(rows, cols) * across * along[:, None]).reshape(-1)
    part = values[start : start + count].copy()
    multiply_scales(part, start, along, across[None])
    assert np.array_equal(part, whole[start : start + count])


def test_scales_of_rank_one_variances_are_found_exactly() -> None:
    along, across = np.array([1.0, 2, 8, 4]), np.array([3.0, 1, 1, 2, 1])
    units = (64 * np.outer(along, across)).astype(np.int64)
    rows, columns = fit_scales((units**2).sum(axis=1), (units**2).sum(axis=0), 2)
    made = np.outer(rows.astype(float), columns.astype(float)) / gain(2)
    assert made == pytest.approx(units, rel=2e-3)


def test_a_zero_row_or_column_has_a_zero_scale_and_no_infinite_inverse() -> None:
    units = np.array([[5, 0, 3], [0, 0, 0]], np.int64)
    rows, columns = fit_scales((units**2).sum(axis=1), (units**2).sum(axis=0), 4)
    assert rows[1] == 0 and columns[1] == 0
    assert all(np.isfinite(side).all() for side in inverse_scales(rows, columns, 4))
    rows, columns = fit_scales(np.zeros(2, np.int64), np.zeros(3, np.int64), 4)
    assert not rows.any() and not columns.any()


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_a_cut_sum_keeps_the_length_along_the_sum(bits: int) -> None:
    units = (500 * np.random.default_rng(0).standard_normal((300, 400))).round().astype(np.int64)
    rows, columns = fit_scales((units**2).sum(axis=1), (units**2).sum(axis=0), bits)
    scaled = units.reshape(-1).astype(np.float32)
    along, across = inverse_scales(rows, columns, bits)
    multiply_scales(scaled, 0, along, across[None])
    back = np.empty(units.size, np.float32)
    decode(pack_codes(encode(scaled, bits), bits), bits, back)
    multiply_scales(back, 0, rows.astype(np.float32), columns.astype(np.float32)[None])
    true, cut = units.reshape(-1).astype(float), back.astype(float)
    assert true @ cut / (true @ true) == pytest.approx(1, abs=5e-3)
    cosine = true @ cut / np.sqrt((true @ true) * (cut @ cut))
    assert cosine == pytest.approx(sqrt(1 - DISTORTION[bits]), abs=2e-3)
