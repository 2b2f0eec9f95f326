"""Cosines, as they are and as they are predicted."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.stats import cosines, predicted_cosine


def test_cosines_of_a_gram_matrix_equal_those_of_its_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 10))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert cosines(vectors @ vectors.T) == pytest.approx(unit @ unit.T)


def test_a_zero_delta_has_cosine_zero_with_every_other() -> None:
    assert cosines(np.array([[4.0, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_orthogonal_deltas_are_predicted_by_their_norms_alone() -> None:
    squares = np.array([[1.0, 3.0], [2.0, 6.0]])
    assert predicted_cosine(squares, np.zeros((2, 2)), 0) == pytest.approx(sqrt_share(3, 12))
    assert predicted_cosine(squares, np.zeros((2, 2)), 1) == pytest.approx(sqrt_share(9, 12))


def sqrt_share(part: float, whole: float) -> float:
    return float((part / whole) ** 0.5)


def test_the_prediction_equals_the_cosine_with_the_sum_of_known_vectors() -> None:
    vectors = np.random.default_rng(1).normal(size=(4, 50)) + 0.5
    gram, total = vectors @ vectors.T, vectors.sum(axis=0)
    for task, vector in enumerate(vectors):
        expected = vector @ total / np.linalg.norm(vector) / np.linalg.norm(total)
        assert predicted_cosine(np.diag(gram)[None], gram, task) == pytest.approx(expected)


def test_a_task_without_change_is_retrieved_perfectly() -> None:
    assert predicted_cosine(np.array([[0.0, 2.0]]), np.zeros((2, 2)), 0) == 1.0


def test_deltas_that_cancel_leave_nothing_to_retrieve() -> None:
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert predicted_cosine(np.array([[1.0, 1.0]]), gram, 0) == 0.0
