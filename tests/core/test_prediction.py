"""The one formula of predictions against sums of known vectors."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.levels import DISTORTION
from randes_cli.core.prediction import crossing
from randes_cli.core.prediction.crossing import Grams
from randes_cli.core.prediction.cut import Cut
from randes_cli.core.prediction.formula import MOST_ERROR, moments, predict, task_cosine
from randes_cli.core.prediction.lengths import Lengths


def lengths(
    deltas: np.ndarray, groups: list[int], rounded: np.ndarray | None = None, **more: object
) -> Lengths:
    """Of T × tensors × n deltas, and what they are rounded to (themselves, where not given)."""
    units = deltas if rounded is None else rounded
    return Lengths(
        np.square(deltas).sum(axis=2).T,
        (deltas * units).sum(axis=2).T,
        np.square(units).sum(axis=2).T,
        np.asarray(deltas.any(axis=2)).T,
        groups,
        **more,  # type: ignore[arg-type]
    )


def grams(deltas: np.ndarray) -> Grams:
    """One matrix for each tensor."""
    return Grams(np.einsum("tkn,ukn->ktu", deltas, deltas), np.arange(deltas.shape[1]))


def exact(
    deltas: np.ndarray, groups: list[int], rounded: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and relative error of the very sums of T × tensors × n transformed deltas."""
    cosines, errors = [], []
    units = deltas if rounded is None else rounded
    for task, delta in enumerate(deltas):
        there = np.square(delta).sum(axis=1) > 0
        near = [k for k, group in enumerate(groups) if group == groups[task]]
        back = units[near].sum(axis=0)[there].ravel()
        true = delta[there].ravel()
        cosines.append(true @ back / np.linalg.norm(true) / np.linalg.norm(back))
        errors.append(np.linalg.norm(back - true) / np.linalg.norm(true))
    return np.array(cosines), np.array(errors)


@pytest.mark.parametrize("groups", [[0] * 5, [0, 1, 2, 1, 1], [0, 1, 2, 3, 4]])
def test_moments_from_gram_matrices_equal_those_of_the_sums(groups: list[int]) -> None:
    deltas = np.random.default_rng(0).standard_normal((5, 4, 30))
    deltas[1] += 2 * deltas[0]
    deltas[2, 1] = 0  # a tensor that a task left as it was
    found = moments(lengths(deltas, groups), grams(deltas))
    cosines, errors = exact(deltas, groups)
    assert np.allclose(found.cosine, cosines)
    assert np.allclose(found.error(np.ones(5)), errors)


def test_a_task_alone_has_the_cosine_of_its_delta_with_what_it_is_rounded_to() -> None:
    deltas = np.random.default_rng(2).standard_normal((1, 3, 200)) * 0.4
    units = np.rint(deltas)
    found = moments(lengths(deltas, [0], units))
    cosines, errors = exact(deltas, [0], units)
    assert np.allclose(found.cosine, cosines)
    assert np.allclose(found.error(np.ones(1)), errors)


def test_a_delta_that_rounds_to_nothing_beside_others_is_predicted_as_lost() -> None:
    deltas = np.random.default_rng(3).standard_normal((3, 2, 500)) * np.array(
        [[[0.01]], [[5]], [[5]]]
    )
    units = np.rint(deltas)
    found = moments(lengths(deltas, [0] * 3, units), grams(deltas))
    cosines, errors = exact(deltas, [0] * 3, units)
    assert not units[0].any() and found.changed.all()
    assert abs(found.cosine[0]) < 0.05 and abs(cosines[0]) < 0.05
    assert np.allclose(found.cosine[1:], cosines[1:], atol=0.01)
    assert np.allclose(found.error(np.ones(3)), errors, rtol=0.05)


def test_a_delta_below_every_grid_is_lost_and_not_unchanged() -> None:
    none = np.zeros((1, 2))
    found = moments(Lengths(none, none, np.array([[0.0, 4.0]]), np.array([[True, False]]), [0, 0]))
    assert found.cosine.tolist() == [0.0, 1.0]
    assert found.error(np.ones(2)).tolist() == [MOST_ERROR, 0.0]
    assert found.error(np.zeros(2)).tolist() == [1.0, 0.0]


def test_without_gram_matrices_tasks_count_as_orthogonal() -> None:
    norms = np.array([[1.0, 3.0], [0.0, 5.0]])
    alike = Lengths(norms, norms, norms, norms > 0, [0, 0])
    assert moments(alike).cosine == pytest.approx([0.5, np.sqrt(8 / 9)])


def test_a_task_without_change_comes_back_whole() -> None:
    norms = np.array([[0.0, 3.0]])
    found = moments(Lengths(norms, norms, norms, norms > 0, [0, 0]))
    assert found.cosine.tolist() == [1.0, 1.0]
    assert found.error(np.ones(2)).tolist() == [0.0, 0.0]


def test_deltas_that_cancel_leave_nothing_to_retrieve() -> None:
    deltas = np.array([[[1.0, 2.0]], [[-1.0, -2.0]]])
    assert moments(lengths(deltas, [0, 0]), grams(deltas)).cosine.tolist() == [0.0, 0.0]


def test_what_no_task_answers_for_any_more_still_counts_as_noise() -> None:
    norms = np.array([[1.0], [1.0]])
    left = Lengths(norms, norms, norms, norms > 0, [0], others={0: np.array([3.0, 3.0])})
    assert moments(left).cosine == pytest.approx([0.5])
    assert task_cosine(left, 0) == pytest.approx(0.5)


def test_a_sealed_sum_loses_the_root_of_what_its_levels_keep() -> None:
    deltas = np.random.default_rng(1).standard_normal((3, 4, 30))
    live = moments(lengths(deltas, [0] * 3), grams(deltas))
    cut = moments(
        lengths(deltas, [0] * 3, cuts={0: Cut.supposed(np.full(4, 1 / 0.88))}), grams(deltas)
    )
    assert np.allclose(cut.cosine, np.sqrt(0.88) * live.cosine)


@pytest.mark.parametrize("groups", [[0] * 6, [0, 1, 0, 1, 1, 2]])
def test_the_cosine_of_one_task_is_that_of_all_of_them(groups: list[int]) -> None:
    deltas = np.random.default_rng(4).standard_normal((6, 5, 40))
    deltas[3, 2:] = deltas[1] = 0
    one = lengths(deltas, groups, np.rint(deltas), cuts={1: Cut.supposed(np.full(5, 1 / 0.7))})
    alone = [task_cosine(one, task) for task in range(6)]
    assert alone == pytest.approx(moments(one).cosine.tolist())


def test_moments_over_some_tensors_are_those_of_the_sums_there() -> None:
    deltas = np.random.default_rng(5).standard_normal((3, 4, 50))
    found = predict(lengths(deltas, [0] * 3), grams(deltas)).over(np.array([0, 2]))
    cosines, errors = exact(deltas[:, [0, 2]], [0] * 3)
    assert np.allclose(found.cosine, cosines)
    assert np.allclose(found.error(np.ones(3)), errors)


def test_nothing_comes_back_of_a_delta_whose_coefficient_is_0() -> None:
    deltas = np.random.default_rng(5).standard_normal((3, 4, 50))
    found = predict(lengths(deltas, [0] * 3), grams(deltas))
    some = found.at([1.0, 0.0, 0.5])
    assert found.at([1.0, 0.1, 0.5]) is found
    for one, other in ((found.dot, some.dot), (found.length, some.length)):
        assert np.array_equal(other, one * np.array([1, 0, 1]))


def test_a_cut_is_read_as_it_was_measured_or_as_levels_are_made() -> None:
    """One sum that was measured, one that was not, and one that stays live, of a share of 1/2."""
    supposed = Cut.supposed(np.full(3, 2.0), 2, np.array([64.0, 64.0, 0.0]))
    cut = supposed.measured(*(np.array([value, 0.0, 0.0]) for value in (4.0, 2.0, 3.6)))
    energy, whole = np.ones((3, 2)), np.array([4.0, 5.0, 6.0])
    kept, length = cut.read(energy, None, whole)
    assert kept.tolist() == [[0.5, 0.5], [1.0, 1.0], [1.0, 1.0]]
    expected = [4 * 3.6, 2 * 5 / (1 - DISTORTION[2]), 2 * 6]
    assert length == pytest.approx(expected)
    kept, length = cut.read(energy, [energy, energy], whole)  # of Gaussians
    assert kept == pytest.approx(np.array([[0.5, 0.5], [1.0, 1.0], [1.0, 1.0]]), abs=1e-3)
    assert length == pytest.approx(expected, rel=1e-3)


def test_of_a_cell_of_several_tensors_a_pair_has_one_cosine_in_all_of_them() -> None:
    shared = np.random.default_rng(6).standard_normal((1, 3, 4000))
    own = np.random.default_rng(7).standard_normal((4, 3, 4000))
    sizes = np.array([1.0, 20.0, 0.1])[None, :, None] * np.array([1, 3, 1, 2])[:, None, None]
    deltas = (0.8 * shared + 0.6 * own) * sizes
    met = np.einsum("tkn,ukn->tu", deltas, deltas)[None]
    whole = predict(lengths(deltas, [0] * 4), Grams(met, np.zeros(3, np.int64)))
    for row in range(3):
        cosines, _ = exact(deltas[:, [row]], [0] * 4)
        assert np.allclose(whole.over(np.array([row])).cosine, cosines, atol=0.02)


def test_where_layers_are_shuffled_each_meets_what_lies_at_its_position() -> None:
    source = np.random.default_rng(8)
    deltas = source.standard_normal((4, 5, 600)) * 10.0 ** source.uniform(-1, 1, (4, 5, 1))
    deltas[1, 2] = 0
    order = np.stack([source.permutation(5) for _ in range(4)], axis=1)
    moved = np.stack([deltas[t][order[:, t]] for t in range(4)])
    met = Grams(np.einsum("tkn,ukn->ktu", moved, moved), np.arange(5))
    found = predict(lengths(deltas, [0] * 4, order=order), met)
    total = moved.sum(axis=0)
    for task in range(4):
        for position in range(5):
            tensor = order[position, task]
            true, back = deltas[task, tensor], total[position]
            if true.any():
                cosine = true @ back / np.linalg.norm(true) / np.linalg.norm(back)
                assert found.over(np.array([tensor])).cosine[task] == pytest.approx(cosine)
        there = np.array([deltas[task, order[p, task]].any() for p in range(5)])
        true, back = moved[task][there].ravel(), total[there].ravel()
        cosine = true @ back / np.linalg.norm(true) / np.linalg.norm(back)
        assert found.over().cosine[task] == pytest.approx(cosine)


def _cell_by_cell(lengths: Lengths, grams: Grams) -> tuple[np.ndarray, np.ndarray]:
    """What `crossed` says, of one cell after the other."""
    norms = np.sqrt(lengths.whole)
    weights = np.divide(lengths.kept, norms, out=np.zeros_like(norms), where=norms > 0)
    dots = np.zeros_like(norms)
    for cell in range(len(grams.met)):
        rows = grams.cell_of == cell
        most = norms[rows].T @ norms[rows]
        cosines = np.divide(grams.met[cell], most, out=np.zeros_like(most), where=most > 0)
        np.fill_diagonal(cosines, 0.0)
        dots[rows] = weights[rows] @ np.clip(cosines, -1.0, 1.0)
    return norms * dots, (weights * dots).sum(axis=1)


@pytest.mark.parametrize("room", [1, 60, 2**18])
def test_cells_of_one_tensor_together_say_what_each_says(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossing, "_ROOM", room)
    rng = np.random.default_rng(5)
    tensors, tasks = 40, 4
    whole = rng.random((tensors, tasks)) * (rng.random((tensors, tasks)) > 0.2)
    changed = np.asarray(whole > 0)
    known = Lengths(whole, whole * 0.9, whole, changed, [0] * tasks)
    cell_of = np.where(np.arange(tensors) % 3 > 0, 30 - np.arange(tensors) % 7, np.arange(tensors))
    cell_of[rng.random(tensors) < 0.1] = -1
    met = rng.standard_normal((tensors, tasks, tasks)) * 0.1
    found = Grams(met + met.transpose(0, 2, 1), cell_of)
    (made,) = crossing.crossed(known, found, [np.arange(tasks)])
    for one, other in zip(made, _cell_by_cell(known, found), strict=True):
        np.testing.assert_array_equal(one, other)
