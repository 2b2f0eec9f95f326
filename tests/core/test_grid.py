"""The step rule: powers of two, their range, and what fits 8 bits."""

from __future__ import annotations

from math import log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.grid import (
    EXPONENT_RANGE,
    LIMIT,
    fits_8_bits,
    raised_exponent,
    step_exponent,
    step_exponents,
)


@given(st.floats(1e-30, 1e25))
def test_a_16_bit_step_is_the_power_of_two_nearest_to_a_64th_of_the_rms(rms: float) -> None:
    exponent = step_exponent(rms, bits=16, capacity=16)
    assert abs(exponent - log2(rms / 64)) <= 0.5 + 1e-9


@given(st.floats(1e-30, 1e25), st.integers(1, 10_000))
def test_an_8_bit_step_is_the_smallest_with_room_for_its_capacity(rms: float, tasks: int) -> None:
    step = 2.0 ** step_exponent(rms, bits=8, capacity=tasks)
    need = 8 * rms * sqrt(tasks)
    assert 127 * step >= need * (1 - 1e-12)
    assert 127 * step / 2 < need * (1 + 1e-12)


def test_a_need_of_exactly_a_power_of_two_is_not_doubled() -> None:
    assert step_exponent(127 / 8, bits=8, capacity=1) == 0
    assert step_exponent(127 / 8 * 1.001, bits=8, capacity=1) == 1


@pytest.mark.parametrize("bits", [16, 8])
def test_steps_of_absurd_deltas_stay_in_the_range_of_float32(bits: int) -> None:
    low, high = EXPONENT_RANGE
    assert step_exponent(1e-300, bits=bits, capacity=1) == low
    assert step_exponent(1e300, bits=bits, capacity=1) == high


@pytest.mark.parametrize(
    ("peak", "raise_by"), [(32768, 1), (65533, 1), (65534, 2), (131068, 3), (2**40, 26)]
)
def test_an_overflow_raises_the_step_until_its_peak_fits(peak: int, raise_by: int) -> None:
    raised = raised_exponent(-10, peak)
    assert raised == -10 + raise_by
    assert peak / 2**raise_by <= LIMIT[16] + 1


def test_a_raised_step_ends_at_the_range() -> None:
    assert raised_exponent(EXPONENT_RANGE[1], 2**20) == EXPONENT_RANGE[1]


def test_normal_deltas_fit_8_bits_and_heavy_tails_do_not() -> None:
    most = (127 / 2 - 4.5 * 4) / 1.5  # in steps of 1/2, the sum of sixteen having a deviation of 4
    for scale in (1.0, 2.0**-9):
        rms, peaks = np.full(4, scale), scale * np.array([4.5, most - 0.01, most + 0.01, 40.0])
        assert fits_8_bits(rms, peaks, capacity=16).tolist() == [True, True, False, False]


@given(st.lists(st.floats(1e-38, 1e38), min_size=1), st.sampled_from([8, 16]), st.integers(1, 999))
def test_the_steps_of_many_tensors_are_those_of_each(
    rms: list[float], bits: int, most: int
) -> None:
    found = step_exponents(np.array(rms), bits=bits, capacity=most)
    assert found.tolist() == [step_exponent(one, bits=bits, capacity=most) for one in rms]
