"""Bytes for people: the unit is the one in which what is printed is below a thousand."""

from __future__ import annotations

import pytest

from randes_cli.ops.card import _size
from randes_cli.views.text import human


@pytest.mark.parametrize(
    ("size", "told", "short"),
    [
        (0, "0 B", "0 bytes"),
        (999, "999 B", "999 bytes"),
        (1000, "1.00 kB", "1.0 kB"),
        (999_949, "999.95 kB", "999.9 kB"),
        (999_994, "999.99 kB", "1.0 MB"),
        (999_996, "1.00 MB", "1.0 MB"),
        (999_999_999, "1.00 GB", "1.0 GB"),
        (2_500_000_000, "2.50 GB", "2.5 GB"),
    ],
)
def test_no_number_is_rounded_up_to_a_thousand_of_its_unit(
    size: int, told: str, short: str
) -> None:
    assert (human(size), _size(size)) == (told, short)
