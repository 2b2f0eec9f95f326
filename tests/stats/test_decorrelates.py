"""Which transforms turn what is not a task's own into noise."""

from __future__ import annotations

from typing import Any

import pytest

from randes_cli.specs import Rest, Transform
from randes_cli.stats.summaries import decorrelates


@pytest.mark.parametrize(
    ("preset", "more", "does"),
    [
        ("two-sided", {}, True),
        ("hankel", {}, True),
        ("srsf", {}, False),
        ("two-sided", {"targets": "q_proj"}, False),
        ("two-sided", {"targets": "q_proj", "rest": Rest.own}, True),
        ("two-sided", {"every": 2}, False),
        ("two-sided", {"every": 2, "rest": Rest.own}, True),
    ],
)
def test_noise_says_what_is_lost_where_all_that_is_summed_is_flipped(
    preset: str, more: dict[str, Any], does: bool
) -> None:
    assert decorrelates(Transform.from_preset(preset, **more)) is does
