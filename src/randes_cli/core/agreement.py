"""How a sealed superposition agrees with what it was: exact sums of integers in any order."""

from __future__ import annotations

from math import frexp, ldexp
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F32, I64
from randes_cli.core.levels import levels

#: A value as it is read counts in parts of 2^(m − 19), 2^m being above the largest of its tensor:
#: 2^19 parts squared, and 2^25 elements of them, stay below 2^63.
_PART_BITS = 19


class Agreement(NamedTuple):
    """Sums over elements, S being the integers and n what is read, in parts of a step.

    Σ S², Σ S·n and Σ n².
    """

    squares: int = 0
    crossed: int = 0
    lengths: int = 0

    def plus(self, units: I64, values: F32, part: int) -> Agreement:
        """With what more elements, `units`, are read as: S · n and n², for S² is known before.

        `values` are in steps, and count in parts of 2^`part`; 2^25 elements at the most.
        """
        counts = np.rint(np.ldexp(values, -part)).astype(np.int64)
        crossed, lengths = int(np.dot(units, counts)), int(np.dot(counts, counts))
        return Agreement(self.squares, self.crossed + crossed, self.lengths + lengths)

    def joined(self, other: Agreement) -> Agreement:
        """Of all elements of both."""
        return Agreement(*(a + b for a, b in zip(self, other, strict=True)))

    def moments(self, exponent: int, part: int) -> tuple[float, float, float]:
        """‖S‖², ⟨S, Q⟩ and ‖Q‖², each the float64 nearest to it; the step is 2^exponent."""
        return (
            ldexp(float(self.squares), 2 * exponent),
            ldexp(float(self.crossed), 2 * exponent + part),
            ldexp(float(self.lengths), 2 * (exponent + part)),
        )


def part_of(rows: F32, columns: F32, bits: int) -> int:
    """The exponent of the part that values of a sealed tensor count in, from its scales.

    2^(part + 19) is the smallest power of two above the last level times the largest row scale
    times the largest column scale.
    """
    most = float(levels(bits)[-1]) * float(rows.max(initial=0)) * float(columns.max(initial=0))
    return frexp(most)[1] - _PART_BITS
