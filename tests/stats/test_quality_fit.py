"""The coefficients of the prediction are those that the stored measurements give."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from randes_cli.core import quality

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quality" / "fit.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality_fit", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_coefficients_are_fitted_to_the_stored_measurements(script: ModuleType) -> None:
    found = script.fit(script.read())
    assert pytest.approx((found.power, found.dropped), rel=0.03) == (quality.POWER, quality.DROPPED)
    assert quality.FAMILIES.keys() == found.families.keys()
    for name, family in quality.FAMILIES.items():
        assert family == pytest.approx(found.families[name], rel=0.06)


def test_half_of_the_measured_banks_kept_what_was_predicted_to_a_hundredth(
    script: ModuleType,
) -> None:
    points = script.read()
    told = script.Fitted(quality.POWER, quality.DROPPED, quality.FAMILIES).kept(points)
    errors = np.abs(np.array(told) - np.array([point.kept for point in points]))
    assert np.median(errors) < 0.01
    assert np.quantile(errors, 0.9) < 0.06


def test_the_script_predicts_as_the_product_does(script: ModuleType) -> None:
    points = script.read()
    told = script.Fitted(quality.POWER, quality.DROPPED, quality.FAMILIES).kept(points)
    for point, value in zip(points, told, strict=True):
        kept = quality.family_kept(quality.FAMILIES[point.family], point.noise)
        assert float(kept[0]) == pytest.approx(value)
