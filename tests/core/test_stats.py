"""Cosines, as they are and as they are predicted."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.prediction.cosines import (
    cosines,
    default_coefficient,
    is_lost,
    near,
    rounding_of,
)


def test_cosines_of_a_gram_matrix_equal_those_of_its_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 10))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert cosines(vectors @ vectors.T) == pytest.approx(unit @ unit.T)


def test_a_zero_delta_has_cosine_zero_with_every_other() -> None:
    assert cosines(np.array([[4.0, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("sigma", [0.2, 0.25, 0.5, 1.0, 3.0, 40.0])
def test_rounding_of_gaussian_deltas_is_what_a_sample_shows(sigma: float) -> None:
    values = np.random.default_rng(2).standard_normal(400_000) * sigma
    units, own = np.rint(values), values @ values
    kept, rounded = rounding_of(np.array([sigma]))
    assert kept[0] == pytest.approx(values @ units / own, abs=0.01)
    assert rounded[0] == pytest.approx(units @ units / own, abs=0.02)


def test_the_default_coefficient_is_one_up_to_sixty_four_deltas_and_none_for_a_lost_one() -> None:
    assert [default_coefficient(n**-0.5) for n in (1, 8, 64, 256)] == [1.0, 1.0, 1.0, 0.5]
    assert default_coefficient(0.0) == 0.0


def test_many_deltas_of_one_length_are_not_lost_but_a_short_one_among_long_ones_is() -> None:
    tasks = np.array([1.0, 2, 32, 64, 100, 1000])
    assert not is_lost(tasks**-0.5, tasks).any()
    found = is_lost(np.array([0.02, 0.0, 0.2]), np.array([3.0, 1, 3]))
    assert found.tolist() == [True, True, False]


def test_tasks_are_near_those_of_their_group_that_changed_something() -> None:
    changed = np.array([[True, False, True], [True, True, False]])
    assert near(changed, [0, 1, 0]).tolist() == [[2, 0, 2], [1, 1, 1]]
    assert near(changed[0], [0, 0, 1]).tolist() == [1, 1, 1]
