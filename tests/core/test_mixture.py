"""What a cut keeps of deltas that are not alike, against sums that are made and cut."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.arrays import F64
from randes_cli.core.codes import encode
from randes_cli.core.levels import gain, levels
from randes_cli.core.prediction.dealt import dealt_cut
from randes_cli.core.prediction.mixture import Mixture, Shapes, two_gaussians
from randes_cli.core.tails import means, tails

ELEMENTS = 2**14
KINDS = ("dense", "sparse", "Laplace", "product")


def delta(source: np.random.Generator, kind: str) -> F64:
    value = source.standard_normal(ELEMENTS)
    if kind == "sparse":
        value = value * (source.random(ELEMENTS) < 0.02)
    elif kind == "Laplace":
        value = source.laplace(size=ELEMENTS)
    elif kind == "product":
        value = value * source.standard_normal(ELEMENTS)
    made: F64 = value * 10.0 ** -source.uniform(0, 1.5)
    return made


def tails_of(value: F64) -> F64:
    unit = float(np.abs(value).max()) / 2**18
    found = means(np.rint(value / unit)[None], np.array([unit]))[:, 0]
    return tails(np.array(found)[:, None], np.array([np.mean(value**2)]))[:, 0]


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_loss_of_a_sum_is_divided_as_it_falls(bits: int) -> None:
    source, errors = np.random.default_rng(bits), list[float]()
    for _ in range(40):
        parts = [delta(source, str(source.choice(KINDS))) for _ in range(source.integers(1, 6))]
        made = np.array(parts)
        whole = made.sum(axis=0)
        scale = float(np.sqrt(np.mean(whole**2)))
        codes = encode((whole / scale).astype(np.float32), bits)
        read = levels(bits)[codes].astype(np.float64) * gain(bits) * scale
        energy = (made**2).sum(axis=1)[None]
        ends = np.array([tails_of(part) for part in parts]).T[:, None]
        mixture = Mixture(energy, Shapes.of(list(ends)), np.full(1, float(ELEMENTS)), bits)
        kept = mixture.fitted(np.array([whole @ read / (whole @ whole)]))
        said = kept[0] * np.sqrt(energy[0] / (read @ read))
        true = made @ read / np.sqrt(energy[0] * (read @ read))
        errors += (said - true).tolist()
        assert mixture.length()[0] > 0.7 * (read @ read) / (whole @ whole)
    assert max(errors) < 0.08 and min(errors) > -0.2 and np.mean(np.abs(errors)) < 0.02


def test_two_gaussians_have_the_moments_that_they_are_made_of() -> None:
    often, small, large = np.array([0.02, 0.1, 0.5]), np.array([0.0, 0.5, 0.3]), np.empty(3)
    large = (1 - small * (1 - often)) / often
    fourth = often * large**2 + (1 - often) * small**2
    first = (often * np.sqrt(large) + (1 - often) * np.sqrt(small)) ** 2
    p, a, b = two_gaussians(first, fourth)
    assert p == pytest.approx(often, rel=1e-3)
    assert a == pytest.approx(small, abs=1e-3) and b == pytest.approx(large, rel=1e-3)


def test_a_gaussian_keeps_what_its_levels_are_made_for() -> None:
    ones = np.ones((1, 3))
    mixture = Mixture(ones, Shapes.of([ones, ones]), np.full(1, 64.0), 2)
    assert mixture.supposed() == pytest.approx(1.0, abs=1e-3)
    assert mixture.length() == pytest.approx(gain(2), abs=1e-3)


def test_of_a_sum_that_keeps_more_than_itself_the_heavy_delta_gets_more() -> None:
    ends = [np.array([[0.9, 1.0]]), np.array([[1.5, 1.0]])]
    energy = np.array([[1.0, 3.0]])
    kept = Mixture(energy, Shapes.of(ends), np.full(1, 64.0), 1).fitted(np.array([1.04]))[0]
    assert kept @ energy[0] / 4 == pytest.approx(1.04)
    assert kept[0] - kept[1] == pytest.approx(4 * 0.04 * 0.9 * 0.5, abs=0.01)


def test_scales_take_in_large_elements_that_are_alone_in_their_rows() -> None:
    often, other = np.full((2, 1), 0.01), np.full((2, 1), 0.5)
    shapes = Shapes(often, other, (1 - 0.99 * 0.5) / often, other, 8 * other)
    few, many = Mixture(np.ones((2, 1)), shapes, np.array([10.0, 1000.0]), 1).supposed()[:, 0]
    assert few > 0.95 and many < 0.8


def test_what_a_sample_missed_counts_as_few_large_elements() -> None:
    sampled = np.array([[1.0], [1.5], [7.0], [100.0]])
    alike, far = tails(sampled, np.array([3.0])), tails(sampled, np.array([15.0]))
    assert alike[:, 0] == pytest.approx([np.pi / 2 / 1.5, 7 / 3 / 1.5**2])
    first, fourth = 1 + np.sqrt(13.5 / 100), 7 + 13.5**2 * 100
    assert far[:, 0] == pytest.approx([np.pi / 2 * first**2 / 15, fourth / 3 / 15**2])


def test_the_means_of_a_sample_are_those_of_its_numbers_times_their_scale() -> None:
    units, scales = np.array([[64.0, -128.0, 0.0, 192.0]] * 2), np.array([0.25, 2.0])
    values = np.abs(units * scales[:, None])
    exact = np.stack([*((values**power).mean(axis=1) for power in (1, 2, 4)), np.full(2, 4.0)])
    assert np.array_equal(means(units, scales), exact)
    assert np.array_equal(means(units[:1], scales[:1]), exact[:, :1])


@pytest.mark.parametrize("bits", [1, 3])
def test_groups_that_are_cut_at_once_come_out_as_one_by_one(bits: int) -> None:
    source, groups = np.random.default_rng(bits), (0, 1, 2, 0, 1, 0, 4)
    energy, side = source.random((5, 7)) ** 4, np.array([64.0, 0.0, 32.0, 7.0, 500.0])
    energy[source.random(energy.shape) < 0.2] = 0.0
    heavy = 1.0 + source.exponential(5.0, energy.shape)
    shapes = Shapes.of([np.minimum(1.0, heavy**-0.5), heavy])
    found = dealt_cut(energy, shapes, side, groups, bits)
    for column, group in enumerate(sorted(set(groups))):
        members, rows = np.flatnonzero(np.array(groups) == group), side > 0
        ours = Shapes(*(one[np.ix_(rows, members)] for one in shapes))
        alone = Mixture(energy[np.ix_(rows, members)], ours, side[rows], bits)
        assert found.kept[np.ix_(rows, members)] == pytest.approx(alone.supposed(), rel=1e-9)
        assert found.length[rows, column] == pytest.approx(alone.length(), rel=1e-9)
        assert (found.kept[~rows][:, members] == 1).all() and (found.length[~rows] == 1).all()
