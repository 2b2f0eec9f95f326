"""Sign patterns: what flips, and that a window is a window of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.signs import SignRun, SignWindow, random_bytes, sign_bits
from randes_cli.specs import Signs


def stream_bit(seed: int, tensor: str, position: int) -> int:
    """Bit `position` of a stream, least significant first, the slow way."""
    return random_bytes("signs", seed, tensor, position // 8 + 1)[-1] >> (position % 8) & 1


def whole_pattern(signs: Signs, seed: int, tensor: str, rows: int, cols: int) -> np.ndarray:
    """The signs of a rows × cols tensor from the definition, element by element."""
    made = np.ones((rows, cols), np.float32)
    for i in range(rows):
        for j in range(cols):
            places: dict[Signs, tuple[int, ...]] = {
                Signs.none: (),
                Signs.column: (j,),
                Signs.hankel: (i + j,),
                Signs.two_sided: (i, rows + j),
            }
            for place in places[signs]:
                made[i, j] *= -1 if stream_bit(seed, tensor, place) else 1
    return made


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
    rows, cols = draw(st.integers(1, 12)), draw(st.integers(1, 20))
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    bottom, right = draw(st.integers(top + 1, rows)), draw(st.integers(left + 1, cols))
    return rows, cols, (top, bottom), (left, right)


BLOCKS = (Signs.none, Signs.column, Signs.hankel)


@given(windows(), st.sampled_from(BLOCKS), st.integers(0, 2**64), st.floats(0.001, 1000))
def test_any_window_equals_that_part_of_the_whole_pattern(
    window: tuple[int, int, tuple[int, int], tuple[int, int]],
    signs: Signs,
    seed: int,
    scale: float,
) -> None:
    rows, cols, (top, bottom), (left, right) = window
    bits = sign_bits(signs, seed, "w", rows, cols)
    whole = whole_pattern(signs, seed, "w", rows, cols)
    found = SignWindow(signs, bits, (top, bottom), (left, right), scale).values()
    assert np.array_equal(found, whole[top:bottom, left:right] * np.float32(scale))


@given(
    st.integers(1, 12), st.integers(1, 20), st.data(), st.integers(0, 2**53), st.floats(0.001, 1000)
)
def test_any_run_of_two_sided_signs_equals_that_part_of_the_whole_pattern(
    rows: int, cols: int, data: st.DataObject, seed: int, scale: float
) -> None:
    first = data.draw(st.integers(0, rows * cols - 1))
    count = data.draw(st.integers(1, rows * cols - first))
    bits = sign_bits(Signs.two_sided, seed, "w", rows, cols)
    whole = whole_pattern(Signs.two_sided, seed, "w", rows, cols).reshape(-1)
    run = SignRun(bits, (rows, cols), first, count, scale)
    expected = whole[first : first + count] * np.float32(scale)
    assert np.array_equal(run.values(), expected[None])
    assert len(list(run.parts())) <= 3


@pytest.mark.parametrize(
    ("signs", "count"),
    [(Signs.none, 0), (Signs.column, 5), (Signs.hankel, 15), (Signs.two_sided, 16)],
)
def test_a_pattern_takes_only_the_bits_that_it_needs(signs: Signs, count: int) -> None:
    assert len(sign_bits(signs, 7, "w", 81, 40)) == count


def test_an_empty_tensor_takes_no_bits() -> None:
    assert sign_bits(Signs.hankel, 7, "w", 0, 5) == b""


def test_patterns_of_two_tasks_agree_on_about_half_of_the_elements() -> None:
    patterns = [
        SignWindow(
            Signs.hankel, sign_bits(Signs.hankel, seed, "w", 300, 500), (0, 300), (0, 500), 1.0
        ).values()
        for seed in (42, 43)
    ]
    correlation = float((patterns[0] * patterns[1]).mean())
    assert abs(correlation) < 5 / np.sqrt(799)
