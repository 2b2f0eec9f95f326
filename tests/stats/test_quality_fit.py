"""The coefficients of the prediction are those that the stored measurements give."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from randes_cli.core.prediction import quality
from tests import scripts


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return scripts.script("benchmarks/quality/fit.py")


def product(script: ModuleType) -> Any:
    """The product's coefficients, as the script has its own."""
    numbers = (quality.POWER, quality.DROPPED, quality.WORSE)
    return script.Fitted(*numbers, quality.FAMILIES)


def test_the_coefficients_are_fitted_to_the_stored_measurements(script: ModuleType) -> None:
    found = script.fit(script.read())
    same = (quality.POWER, quality.DROPPED, quality.WORSE)
    assert pytest.approx((found.power, found.dropped, found.worse), rel=0.03) == same
    assert quality.FAMILIES.keys() == found.families.keys()
    for name, family in quality.FAMILIES.items():
        assert family == pytest.approx(found.families[name], rel=0.06)


def test_half_of_the_measured_banks_kept_what_was_predicted_to_a_hundredth(
    script: ModuleType,
) -> None:
    points = script.read()
    kept = np.array([max(0.0, point.kept) for point in points])
    errors = np.abs(np.array(product(script).kept(points)) - kept)
    assert np.median(errors) < 0.01
    assert np.quantile(errors, 0.9) < 0.06


def test_banks_that_were_worse_than_their_base_are_told_to_keep_next_to_nothing(
    script: ModuleType,
) -> None:
    """Not 25 % where none was measured; and what kept less than half is not told much more."""
    points = script.read()
    told = dict(zip(points, product(script).kept(points), strict=True))
    hopeless = [point for point in points if point.kept <= 0.0]
    assert len(hopeless) >= 8
    assert max(told[point] for point in hopeless) < 0.01
    poor = [point for point in points if point.kept < 0.5]
    assert all(told[point] - max(0.0, point.kept) < 0.08 for point in poor)


def test_the_script_predicts_as_the_product_does(script: ModuleType) -> None:
    points = script.read()
    told = product(script).kept(points)
    for point, value in zip(points, told, strict=True):
        family, at = quality.FAMILIES[point.family], np.array([point.coefficient])
        kept = quality.family_kept(family, point.noise, at)
        assert float(kept[0]) == pytest.approx(value)
