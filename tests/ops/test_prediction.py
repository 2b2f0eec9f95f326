from __future__ import annotations

import numpy as np
import pytest

from randes_cli.stats.prediction import moments


def exact(deltas: np.ndarray, groups: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and relative error of the very sums of T × tensors × n transformed deltas."""
    cosines, errors = [], []
    for task, delta in enumerate(deltas):
        there = np.square(delta).sum(axis=1) > 0
        near = [k for k, group in enumerate(groups) if group == groups[task]]
        back = deltas[near].sum(axis=0)[there].ravel()
        true = delta[there].ravel()
        cosines.append(true @ back / np.linalg.norm(true) / np.linalg.norm(back))
        errors.append(np.linalg.norm(back - true) / np.linalg.norm(true))
    return np.array(cosines), np.array(errors)


@pytest.mark.parametrize("groups", [[0] * 5, [0, 1, 0, 1, 1], [0, 1, 2, 3, 4]])
def test_moments_from_gram_matrices_equal_those_of_the_sums(groups: list[int]) -> None:
    deltas = np.random.default_rng(0).standard_normal((5, 4, 30))
    deltas[1] += 2 * deltas[0]
    deltas[2, 1] = 0  # a tensor that a task left as it was
    norms = np.square(deltas).sum(axis=2).T
    met = np.einsum("tkn,ukn->ktu", deltas, deltas)
    found = moments(norms, met, np.arange(4), groups)
    cosines, errors = exact(deltas, groups)
    assert np.allclose(found.cosine, cosines)
    assert np.allclose(found.error(np.ones(5)), errors)


def test_without_gram_matrices_tasks_count_as_orthogonal() -> None:
    norms = np.array([[1.0, 3.0], [0.0, 5.0]])
    found = moments(norms, np.zeros((0, 2, 2)), np.array([-1, -1]), [0, 0])
    assert found.cosine == pytest.approx([0.5, np.sqrt(8 / 9)])


def test_a_task_without_change_comes_back_whole() -> None:
    norms = np.array([[0.0, 3.0]])
    found = moments(norms, np.zeros((0, 2, 2)), np.array([-1]), [0, 0])
    assert found.cosine.tolist() == [1.0, 1.0]
    assert found.error(np.ones(2)).tolist() == [0.0, 0.0]


def test_a_sealed_sum_loses_the_root_of_what_its_levels_keep() -> None:
    deltas = np.random.default_rng(1).standard_normal((3, 4, 30))
    norms = np.square(deltas).sum(axis=2).T
    met = np.einsum("tkn,ukn->ktu", deltas, deltas)
    live = moments(norms, met, np.arange(4), [0] * 3)
    cut = moments(norms, met, np.arange(4), [0] * 3, np.full_like(norms, 0.88))
    assert np.allclose(cut.cosine, np.sqrt(0.88) * live.cosine)
