"""The noise that a task comes back with, against a bank made by hand, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from randes_cli.core.arrays import F64
from randes_cli.core.levels import DISTORTION
from randes_cli.core.prediction import cut as cuts_of
from randes_cli.core.prediction import quality
from randes_cli.core.prediction.cosines import default_coefficient
from randes_cli.core.prediction.cut import Cut
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.core.prediction.quality import (
    Family,
    Noise,
    family_kept,
    kept_of,
    mean_kept,
    noise_of,
    wanted,
)

TENSORS, TASKS, SIZE = 3, 4, 4000


def deltas() -> F64:
    """Deltas of several lengths: tensors × tasks × elements."""
    chance = np.random.default_rng(0)
    scale = chance.uniform(0.5, 2.0, (TENSORS, TASKS, 1))
    made: F64 = scale * chance.standard_normal((TENSORS, TASKS, SIZE))
    made[1, 2] = 0.0
    return made


def lengths(found: F64, bits: int, every: int, groups: tuple[int, ...]) -> Lengths:
    whole = (found**2).sum(axis=2)
    spread = np.full(TENSORS, float(every))
    cut = Cut.supposed(spread, bits, np.ones(TENSORS))
    return Lengths(
        whole,
        whole,
        whole,
        whole > 0,
        groups,
        cuts=dict.fromkeys(groups, cut),
    )


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_noise_is_the_energy_of_what_does_not_belong_there(bits: int, every: int) -> None:
    found, groups = deltas(), (0, 0, 0, 1)
    noise = noise_of(lengths(found, bits, every, groups))
    cut = DISTORTION[bits] / (1 - DISTORTION[bits])
    for task in range(TASKS):
        mates = [n for n in range(TASKS) if groups[n] == groups[task]]
        sums = np.zeros(5)
        for tensor in range(TENSORS):
            own = (found[tensor, task] ** 2).sum()
            if own == 0:
                continue
            energy = sum((found[tensor, n] ** 2).sum() for n in mates)
            rounding = every * cut * energy
            follows = own * (cut * (own / energy) ** 2) ** 2
            sums += every * (energy - own), (every - 1) * own, rounding, follows, own
        expected = sums[:4] / sums[4]
        told = [noise.others, noise.dropped, noise.rounding, noise.following]
        assert [values[task] for values in told] == pytest.approx(expected)


def test_a_cut_sum_has_the_noise_that_was_told() -> None:
    """Energies of the parts add up to the squared error of a retrieval by hand."""
    chance = np.random.default_rng(1)
    found = deltas()
    signs = chance.choice([-1.0, 1.0], found.shape)
    kept = chance.permutation(SIZE) < SIZE // 2
    back = 2.0 * kept * signs[:, 0] * (signs * found).sum(axis=1)
    error = ((back - found[:, 0]) ** 2).sum() / (found[:, 0] ** 2).sum()
    spread = np.full(TENSORS, 2.0)
    live = replace(lengths(found, 4, 2, (0,) * TASKS), cuts={0: Cut.supposed(spread)})
    noise = noise_of(live)
    assert noise.rounding == pytest.approx(0.0, abs=1e-9)
    assert noise.others[0] + noise.dropped[0] == pytest.approx(error, rel=0.1)


def test_a_delta_that_fell_through_the_grid_is_not_kept() -> None:
    whole = np.array([[4.0, 4.0]])
    fell = Lengths(whole, np.array([[4.0, 0.0]]), np.array([[4.0, 0.0]]), whole > 0, (0, 1))
    first, second = kept_of(noise_of(fell))
    assert first == (1.0, 1.0, 1.0)
    assert second == (0.0, 0.0, 0.0)


def test_a_sum_that_sealing_measured_is_told_as_it_was_measured() -> None:
    """Half of ⟨S, Q⟩ is lost, and ‖Q‖² is nine tenths of ‖S‖²: an error of 0.9 − 2 · ½ + 1."""
    whole = np.array([[4.0]])
    cut = Cut.supposed(np.ones(1)).measured(np.array([4.0]), np.array([2.0]), np.array([3.6]))
    noise = noise_of(Lengths(whole, whole, whole, whole > 0, (0,), cuts={0: cut}))
    assert noise.along == pytest.approx([0.5])
    assert noise.rounding == pytest.approx([0.9])
    assert noise.following == pytest.approx([0.81])


def test_what_a_task_left_alone_is_kept_whole() -> None:
    whole = np.array([[4.0, 0.0]])
    assert kept_of(noise_of(Lengths(whole, whole, whole, whole > 0, (0, 0))))[1] == (1.0, 1.0, 1.0)
    none = np.zeros((1, 0))
    assert mean_kept(noise_of(Lengths(none, none, none, none > 0, ()))) == (1.0, 1.0, 1.0)


def test_rounding_to_a_grid_and_deltas_that_nobody_answers_for_are_noise() -> None:
    """One task, and one that changed nothing: ⟨Δ, q⟩ and ‖q‖² are 3 of 4, beside a ‖q‖² of 5."""
    whole, rounded = np.array([[4.0, 0.0]]), np.array([[3.0, 0.0]])
    beside = {0: np.array([5.0])}
    noise = noise_of(Lengths(whole, rounded, rounded, whole > 0, (0, 0), others=beside))
    assert noise.others.tolist() == [5 / 4, 0] and noise.rounding.tolist() == [1 / 4, 0]
    assert noise.along.tolist() == [3 / 4, 1]
    assert noise.cosine == pytest.approx([3 / (4 * 8) ** 0.5, 1.0])


def test_what_a_share_drops_counts_half_as_noise_and_whole_for_the_cosine() -> None:
    noise = Noise(*(np.array([value]) for value in (7.0, 4.0, 1.0, 0.1, 0.5)))
    assert noise.whole.tolist() == [7 + 2 + 1]
    assert noise.cosine == pytest.approx([0.5 / (7 + 4 + 1 + 2 * 0.5 - 1) ** 0.5])


def test_families_are_told_by_their_mean_and_range() -> None:
    noise = Noise(*(np.array([value]) for value in (7.0, 0.0, 1.0, 0.1, 1.0)))
    told = sorted(
        float(family_kept(family, noise, noise.told)[0]) for family in quality.FAMILIES.values()
    )
    (kept,) = kept_of(noise)
    assert (kept.low, kept.high) == (told[0], told[-1])
    assert kept.mean == pytest.approx(np.mean(told))
    assert mean_kept(noise) == kept


def test_the_coefficient_that_families_want_falls_with_the_noise_and_they_part() -> None:
    """Against the best of the same formula, tried by hand for each family."""
    for energy in (0.0, 7.0, 31.0, 95.0):
        zero = np.zeros(2)
        noise = Noise(np.array([energy, energy]), zero, zero, zero, np.ones(2))
        best = []
        for family in quality.FAMILIES.values():
            tried = {}
            for place in range(30, 101, 5):
                value, most = place / 100, 1 + quality.WORSE
                lost = family.noise * (energy * value**2) ** quality.POWER
                left = max(0.0, most * np.exp(-lost / most) - quality.WORSE)
                tried[value] = left * value * (2 - value)
            best.append(max(tried, key=lambda value: (tried[value], value)))
        assert wanted(noise) == (min(best), max(best))
    assert wanted(Noise(zero, zero, zero, zero, np.ones(2))) == (1.0, 1.0)


def test_rounding_that_follows_the_weights_weighs_more_than_as_much_interference() -> None:
    rounding = Noise(*(np.array([value]) for value in (0.0, 0.0, 0.57, 0.57, 1.0)))
    others = Noise(*(np.array([value]) for value in (0.57, 0.0, 0.0, 0.0, 1.0)))
    assert kept_of(rounding)[0].mean < kept_of(others)[0].mean
    one, whole = Family(0.01, 0.1), np.ones(1)
    assert family_kept(one, rounding, whole) < family_kept(one, others, whole)


def test_what_is_told_supposes_the_coefficient_that_a_task_is_told() -> None:
    energy = np.array([0.0, 7.0, 95.0])
    zero, one = np.zeros(3), np.ones(3)
    noise = Noise(energy, zero, zero, zero, one)
    told = [default_coefficient((value + 1) ** -0.5) for value in energy]
    assert noise.told == pytest.approx(told, abs=0.005)
    assert told[2] < 1
    assert noise.kept().tolist() == [
        family_kept(family, noise, noise.told).tolist() for family in quality.FAMILIES.values()
    ]


def test_noise_without_end_leaves_nothing_and_no_less() -> None:
    zero, one = np.zeros(1), np.ones(1)
    for energy in (1e4, 1e6, 1e30):
        noise = Noise(np.array([energy]), zero, zero, zero, one)
        assert [family_kept(f, noise, one).tolist() for f in quality.FAMILIES.values()] == [
            [0.0]
        ] * len(quality.FAMILIES)


@pytest.mark.parametrize("tasks", [1, 3, 20])
@pytest.mark.parametrize("groups", [1, 3])
def test_some_tensors_at_a_time_say_what_all_at_once_say(
    tasks: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, tensors = np.random.default_rng(tasks), 60
    whole = rng.random((tensors, tasks)) * (rng.random((tensors, tasks)) > 0.2)
    tails = np.stack([rng.random(whole.shape), 1 + 3 * rng.random(whole.shape)])
    side = np.where(rng.random(tensors) > 0.2, 64.0, 0.0)
    cut = Cut.supposed(np.ones(tensors), 2, side)
    squares = rng.random(tensors) * (rng.random(tensors) > 0.4)
    dealt = [task % groups for task in range(tasks)]
    cuts = {0: cut.measured(squares, 0.9 * squares, squares), 2: cut}
    others = {0: rng.random(tensors)}
    found = []
    for room in (1, 50, 2**20):
        monkeypatch.setattr(quality, "_ROOM", room)
        monkeypatch.setattr(cuts_of, "_ROOM", room)
        known = Lengths(whole, 0.9 * whole, whole, whole > 0, dealt, None, cuts, tails, others)
        noise = noise_of(known)
        found.append([noise.others, noise.rounding, noise.following, noise.along, noise.cosine])
    for made in found[:2]:
        for one, other in zip(made, found[2], strict=True):
            np.testing.assert_array_equal(one, other)
