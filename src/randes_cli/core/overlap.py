"""How two vectors compare: the sums that cosines and relative errors are made of."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from randes_cli.core.arrays import F32


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of two vectors a and b, as sums over their parts in float64.

    Attributes:
        dot: ⟨a, b⟩.
        one: ‖a‖².
        two: ‖b‖².
        apart: ‖a − b‖².
    """

    dot: float = 0.0
    one: float = 0.0
    two: float = 0.0
    apart: float = 0.0

    @classmethod
    def of(cls, a: F32, b: F32) -> Overlap:
        """The sums of one part. Not finite where a value is not."""
        with np.errstate(invalid="ignore"):
            left, right = a.astype(np.float64), b.astype(np.float64)
            apart = left - right
        return cls(*map(float, (left @ right, left @ left, right @ right, apart @ apart)))

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.dot + other.dot,
            self.one + other.one,
            self.two + other.two,
            self.apart + other.apart,
        )

    @property
    def finite(self) -> bool:
        return isfinite(self.dot) and isfinite(self.one + self.two) and isfinite(self.apart)

    @property
    def cosine(self) -> float:
        """cos(a, b), −1 to 1; 1 where both are zero, 0 where one is."""
        scale = sqrt(self.one * self.two)
        if scale > 0:
            return max(-1.0, min(1.0, self.dot / scale))
        return float(self.one == self.two)

    @property
    def distance(self) -> float:
        """‖a − b‖."""
        return sqrt(self.apart)

    @property
    def error(self) -> float | None:
        """‖a − b‖ / ‖a‖; None where a is zero."""
        return sqrt(self.apart / self.one) if self.one > 0 else None
