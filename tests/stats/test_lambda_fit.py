"""The rule of the default λ is the one that the stored measurements give."""

from __future__ import annotations

from statistics import mean
from types import ModuleType

import pytest

from randes_cli.core.prediction.cosines import MOST_NOISE, default_coefficient
from tests import scripts


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return scripts.script("benchmarks/quality/fit_lambda.py")


def test_the_multiple_of_the_cosine_is_fitted_to_the_stored_curves(script: ModuleType) -> None:
    found = script.fit(script.worth_having(script.read()), script.TAKEN)
    assert found == MOST_NOISE
    told = script.rule(found, script.TAKEN)
    for cosine in (0.0, 0.03, 0.08, 0.12, 0.2, 1.0):
        assert default_coefficient(cosine) == pytest.approx(told(cosine), abs=0.005)


def test_no_rule_that_other_families_give_costs_a_family_a_fifth_of_a_point_less_on_average(
    script: ModuleType,
) -> None:
    """Of banks worth having; where it fails, the rule is to be changed."""
    curves = script.worth_having(script.read())
    here = script.cost(curves, default_coefficient)
    for exponent in script.EXPONENTS.values():
        assert mean(script.held_out(curves, exponent).values()) > here - 0.002
    assert script.cost(curves, lambda _: 1.0) > 1.3 * here


def test_what_a_rule_costs_is_read_from_the_curve_and_nothing_is_less_than_nothing(
    script: ModuleType,
) -> None:
    curve = script.Curve("any", "bank", (0.2, 0.4), {1.0: -0.5, 0.5: 0.6, 0.75: 0.5})
    assert curve.cost(lambda _: 0.75) == pytest.approx(0.1)
    assert curve.cost(lambda cosine: 1 - cosine) == pytest.approx(0.6 - 0.52)
    assert curve.cost(lambda _: 1.0) == pytest.approx(0.6)
    assert curve.cost(lambda _: 0.25) == pytest.approx(0.0)
