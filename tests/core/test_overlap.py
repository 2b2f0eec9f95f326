"""Sums of two vectors' parts give the cosine and the distances of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.overlap import Overlap


def vectors(count: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    a = random.standard_normal(count, np.float32)
    return a, a + np.float32(0.5) * random.standard_normal(count, np.float32)


def test_parts_add_up_to_the_whole() -> None:
    a, b = vectors()
    parts = [Overlap.of(a[at : at + 137], b[at : at + 137]) for at in range(0, len(a), 137)]
    found, x, y = sum(parts, Overlap()), a.astype(np.float64), b.astype(np.float64)
    assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
    assert found.distance == pytest.approx(float(np.linalg.norm(x - y)), rel=1e-12)
    assert found.error == pytest.approx(float(np.linalg.norm(x - y) / np.linalg.norm(x)), rel=1e-12)


def test_a_vector_is_at_no_distance_from_itself() -> None:
    a, _ = vectors()
    found = Overlap.of(a, a)
    assert (found.cosine, found.distance, found.error) == (1.0, 0.0, 0.0)


def test_zeros_have_a_cosine_with_zeros_alone_and_no_relative_error() -> None:
    a, _ = vectors()
    zeros = np.zeros_like(a)
    assert Overlap.of(zeros, zeros).cosine == 1.0
    assert Overlap.of(zeros, a).cosine == 0.0
    assert Overlap.of(zeros, a).error is None
    assert Overlap.of(a, zeros).error == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_a_value_that_is_not_finite_shows(value: float) -> None:
    a, b = vectors()
    b[7] = value
    assert not Overlap.of(a, b).finite
    assert not Overlap.of(b, b).finite
    assert Overlap.of(a, a).finite


def test_the_largest_values_do_not_overflow() -> None:
    large = np.full(1000, np.finfo(np.float32).max)
    assert Overlap.of(large, -large).finite
    assert Overlap.of(large, -large).cosine == -1.0
