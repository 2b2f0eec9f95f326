"""Lengths of rounded deltas against sums with Python's fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.energy import PART_BITS, Energy

_parts = st.integers(-(2 ** (PART_BITS - 1)), 2 ** (PART_BITS - 1))


@given(st.lists(st.tuples(st.integers(-32767, 32767), _parts), max_size=30), st.integers(-126, 100))
def test_lengths_are_the_floats_nearest_to_the_exact_sums(
    elements: list[tuple[int, int]], exponent: int
) -> None:
    found = Energy()
    for q, p in elements:
        found = found.plus(Energy(q * q, q * p, p * p))
    step = Fraction(2) ** exponent
    deltas = [(q + Fraction(p, 2**PART_BITS)) * step for q, p in elements]
    assert found.whole(exponent) == float(sum(d * d for d in deltas))
    kept = sum(d * q * step for d, (q, _) in zip(deltas, elements, strict=True))
    assert found.kept(exponent) == float(kept)
    assert found.rounded(exponent) == float(sum((q * step) ** 2 for q, _ in elements))
