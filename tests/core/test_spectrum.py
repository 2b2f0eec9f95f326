"""The end of a spectrum, against the whole of it."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.spectrum import largest_singular, random_bound


def found(matrix: np.ndarray, steps: int = 12) -> float:
    return largest_singular(lambda v: matrix.T @ (matrix @ v), matrix.shape[1], steps=steps)


@pytest.mark.parametrize("shape", [(400, 300), (50, 700), (700, 50), (2, 2)])
def test_a_random_matrix_ends_at_the_bound_within_some_per_cent(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape)
    true = float(np.linalg.norm(matrix, 2))
    assert 0.96 * true <= found(matrix) <= true * (1 + 1e-9)
    if min(shape) > 2:
        assert found(matrix) == pytest.approx(random_bound(1.0, *shape), rel=0.06)


def test_a_direction_that_stands_out_is_found_to_the_last_digits() -> None:
    random = np.random.default_rng(1)
    matrix = random.standard_normal((200, 100))
    matrix += 5 * np.outer(random.standard_normal(200), random.standard_normal(100))
    assert found(matrix) == pytest.approx(float(np.linalg.norm(matrix, 2)), rel=1e-9)


def test_matrices_of_low_rank_end_early() -> None:
    one = np.outer(np.arange(1.0, 9.0), np.ones(5))
    assert found(one) == pytest.approx(float(np.linalg.norm(one, 2)), rel=1e-9)
    assert found(np.zeros((4, 3))) == 0.0
    assert found(np.array([[3.0], [4.0]])) == pytest.approx(5.0)
