"""How long a delta is before and after rounding: exact sums of integers, whatever their order."""

from __future__ import annotations

from math import ldexp
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, F64, I64, Array

#: Parts of a step that what rounding leaves of an element is counted in: 2 to this power.
PART_BITS = 16


class Energy(NamedTuple):
    """Sums over the elements of a delta, v = (Θ_i − Θ_0) / step.

    With q = round(v), which is superposed, and p = round((v − q) · 2^16), what rounding left:
    Σ q², Σ q·p and Σ p².
    """

    squares: int = 0
    crossed: int = 0
    rests: int = 0

    def plus(self, other: Energy) -> Energy:
        return Energy(*(a + b for a, b in zip(self, other, strict=True)))

    def whole(self, exponent: int) -> float:
        """‖Δ‖² before rounding; the step is 2^exponent."""
        parts = (self.squares << 2 * PART_BITS) + (self.crossed << PART_BITS + 1) + self.rests
        return ldexp(float(parts), 2 * (exponent - PART_BITS))

    def kept(self, exponent: int) -> float:
        """⟨Δ, q · step⟩: what of ‖Δ‖² the rounded delta has."""
        parts = (self.squares << PART_BITS) + self.crossed
        return ldexp(float(parts), 2 * exponent - PART_BITS)

    def rounded(self, exponent: int) -> float:
        """‖q · step‖²: what is added to the superposition."""
        return ldexp(float(self.squares), 2 * exponent)


def many_lengths(squares: Array, crossed: Array, rests: Array, exponents: I64) -> F64:
    """`whole`, `kept` and `rounded` of many energies, 3 × that."""
    first, middle, last = (column.astype(np.int64) for column in (squares, crossed, rests))
    parts = (first << 2 * PART_BITS) + (middle << PART_BITS + 1) + last
    made = np.stack(
        [
            np.ldexp(parts.astype(np.float64), 2 * (exponents - PART_BITS)),
            np.ldexp(((first << PART_BITS) + middle).astype(np.float64), 2 * exponents - PART_BITS),
            np.ldexp(first.astype(np.float64), 2 * exponents),
        ]
    )
    # Where a sum may pass 2^63, Python's integers do it.
    large = (squares >> 30 > 0) | (np.abs(middle) >> 44 > 0) | (rests >> 60 > 0)
    for at in np.flatnonzero(large).tolist():
        one, e = Energy(int(squares[at]), int(crossed[at]), int(rests[at])), int(exponents[at])
        made[:, at] = one.whole(e), one.kept(e), one.rounded(e)
    return made


def many_energies(deltas: F32, exponents: I64) -> tuple[Array, Array, Array]:
    """The sums of small deltas, one a row, each in steps of its own: they fit float64 exactly.

    Of up to 2^16 elements, whose magnitudes are within GRID_LIMIT (2^15) steps.
    """
    steps = deltas * np.ldexp(np.float32(1), -exponents)[:, None].astype(np.float32)
    units = np.rint(steps)
    parts = np.rint((steps - units) * np.float32(2**PART_BITS)).astype(np.float64)
    wide = units.astype(np.float64)
    pairs = (wide, wide), (wide, parts), (parts, parts)
    squares, crossed, rests = (np.einsum("ij,ij->i", *pair) for pair in pairs)
    return squares.astype(np.uint64), crossed.astype(np.int64), rests.astype(np.uint64)
