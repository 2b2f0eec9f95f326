"""How a cut to few bits treats deltas of one sum that are not alike: sparse and dense ones.

Each delta's elements are taken as a mixture of two Gaussians, with the mean of |x|, x² and x⁴
that was measured of it. Given which of the two each delta is in, the sum S is Gaussian with
variance s², and ⟨x, Q(S)⟩ is x's part of it times E[S Q(S)] / s² (Bussgang).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import erf, pi, sqrt
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.levels import gain, levels, thresholds

#: Standard deviations, in those of the sum, at which the two expectations are tabled.
_SIGMA = np.geomspace(2.0**-12, 2.0**20, 513)

#: Steps of bisection, for the tails' strength and for a Gaussian's variance.
_HALVINGS, _FINE = 8, 30
#: Large elements in a row that count as none.
_LEAST = 1e-9
#: Where a sum keeps more than all of itself, how many times that deltas of low rank get more of it
#: than the others (measured at one bit, where it matters), and the mean below which one is sparse.
_BESIDE, _SPARSE = 4.0, 0.5


@lru_cache(maxsize=8)
def _table(bits: int) -> tuple[F64, F64]:
    """E[Y Q(Y)] / s² and E[Q(Y)²] of Y ~ N(0, s²), at `_SIGMA`; Q has the gain in it."""
    rises = np.diff(levels(bits).astype(np.float64)) * gain(bits)
    limits = thresholds(bits).astype(np.float64)
    squares = (levels(bits).astype(np.float64) * gain(bits)) ** 2
    kept, length = [], []
    for s in _SIGMA.tolist():
        density = np.exp(-((limits / s) ** 2) / 2) / sqrt(2 * pi)
        kept.append(float(rises @ density) / s)
        below = np.array([0.0, *(0.5 + erf(t / s / sqrt(2)) / 2 for t in limits.tolist()), 1.0])
        length.append(float(np.diff(below) @ squares))
    return np.array(kept), np.array(length)


def _at(values: F64, variance: F64) -> F64:
    """A table's values at variances, in the sum's; the tables are smooth in logarithms."""
    where = np.log(np.clip(variance, _SIGMA[0] ** 2, _SIGMA[-1] ** 2)) / 2
    made: F64 = np.exp(np.interp(where, np.log(_SIGMA), np.log(np.maximum(values, 1e-300))))
    return made


def two_gaussians(first: F64, fourth: F64) -> tuple[F64, F64, F64]:
    """The mixture p · N(0, b) + (1 − p) · N(0, a) of unit variance: p, a and b.

    `first` is (π/2) · E[|x|]² / E[x²], 1 for a Gaussian; `fourth` is E[x⁴] / (3 E[x²]²), likewise.
    b·p + a·(1 − p) = 1, b²·p + a²·(1 − p) = fourth, √b·p + √a·(1 − p) = √first: one equation
    is left in a, which is solved by bisection. What is not heavier than a Gaussian is one.
    """
    heavy = np.maximum(fourth, 1.0)
    low, high = np.zeros(heavy.shape), np.ones(heavy.shape)
    for _ in range(_FINE):
        a = (low + high) / 2
        p, b = _rest(a, heavy)
        more = np.sqrt(b) * p + np.sqrt(a) * (1 - p) < np.sqrt(first)
        low, high = np.where(more, a, low), np.where(more, high, a)
    a = np.where(heavy > 1 + 1e-9, (low + high) / 2, 1.0)
    p, b = _rest(a, heavy)
    return p, a, b


def _rest(a: F64, fourth: F64) -> tuple[F64, F64]:
    """p and b that a leaves."""
    rest = fourth - 1 + (1 - a) ** 2
    p = np.divide((1 - a) ** 2, rest, out=np.zeros(a.shape), where=rest > 0)
    b = np.divide(1 - a, p, out=np.ones(a.shape), where=p > 0) + a
    return p, b


def _other(mean: F64, least: F64, often: F64) -> F64:
    """The value with which `least`, taken so often, has a mean."""
    rest = np.maximum(1 - often, _LEAST)
    return np.maximum((mean - often * least) / rest, least)


class Shapes(NamedTuple):
    """Deltas as mixtures of two Gaussians, of unit variance: arrays of one shape.

    Attributes:
        often: how often an element is of the wider one.
        low, high: the variances of both.
        first, fourth: `core.tails.tails`.
    """

    often: F64
    low: F64
    high: F64
    first: F64
    fourth: F64

    @classmethod
    def of(cls, tails: Sequence[F64]) -> Shapes:
        return cls(*two_gaussians(*tails), *tails)


class Mixture:
    """Sums of deltas that are mixtures of two Gaussians each.

    `energy` are ‖x‖², sums × T; `shapes` arrays like it. `side` is the shorter side of each sum's
    matrix: large elements that are alone in a row or a column, or nearly, are taken in by its
    scale.
    """

    def __init__(self, energy: F64, shapes: Shapes, side: F64, bits: int) -> None:
        total = energy.sum(axis=1, keepdims=True)
        self.part = np.divide(energy, total, out=np.zeros(energy.shape), where=total > 0)
        self.often, self.low, self.high, first, fourth = shapes
        self._sparse = np.asarray(first < _SPARSE)
        self._wide = np.clip(first, 0, 1) * np.clip(fourth - 1, 0, 1) * (energy > 0)
        self._crowd = self.often * side[:, None]
        self._kept, self._length = _table(bits)

    def supposed(self) -> F64:
        """⟨x, Q(S)⟩ / ⟨x, S⟩ of every delta in every sum, sums × T, nothing measured."""
        return self._kept_of(self._rare())

    def _rare(self) -> F64:
        """How much of its tails each delta has left, 0 to 1, where scales take rare ones in."""
        return np.minimum(1.0, self._crowd)

    def _few(self) -> F64:
        """The same where the loss of the whole sum is known, and one of its deltas is long.

        With k large elements in a row, one's scale is 1 + 1/k times as large as on the average,
        as far as this delta makes it.
        """
        rare = 1.0 / np.maximum(self._crowd, _LEAST)
        larger = 1 + ((1 + rare) ** 2 - 1) * self.part
        left, whole = self.high / larger - 1, self.high - 1
        made = np.divide(left, whole, out=np.ones(left.shape), where=whole > 0)
        return np.asarray(np.clip(made, 0.0, 1.0))

    def _kept_of(self, strength: F64) -> F64:
        """`supposed` with tails of some strength: with 0 all are Gaussian, and keep 1."""
        low, high = self._variances(strength)
        mean, least = (
            np.maximum(one.sum(axis=1, keepdims=True) - one, 0.0)
            for one in (low + self.often * (high - low), low)
        )
        alone = self._all_light()[:, None] / np.maximum(1 - self.often, _LEAST)
        more = _other(mean, least, alone)
        made = np.zeros(low.shape)
        for weight, own in ((1 - self.often, low), (self.often, high)):
            near = alone * _at(self._kept, own + least)
            near += (1 - alone) * _at(self._kept, own + more)
            made += weight * own * near
        kept: F64 = np.divide(made, self.part, out=np.ones(made.shape), where=self.part > 0)
        return kept

    def length(self) -> F64:
        """‖Q(S)‖² / ‖S‖² of every sum."""
        low, high = self._variances(self._rare())
        alone, least = self._all_light(), low.sum(axis=1)
        more = _other((low + self.often * (high - low)).sum(axis=1), least, alone)
        made: F64 = alone * _at(self._length, least) + (1 - alone) * _at(self._length, more)
        return made

    def _all_light(self) -> F64:
        """How often no delta of a sum has a large element: then its variance is least."""
        light: F64 = (1 - self.often).prod(axis=1)
        return light

    def fitted(self, kept: F64) -> F64:
        """`supposed`, where the deltas of each sum were measured to keep together `kept`.

        Scales follow the rows and columns of a delta of low rank, and what is left of it has
        lighter tails than a Gaussian: then the sum keeps more than all of itself, that delta too,
        and those beside it keep less. A sparse delta keeps no more than its own tails leave it.
        """
        made, alone = self._of_strength(kept), self.supposed()
        over = _BESIDE * np.maximum(kept - 1, 0)[:, None]
        wide = (self.part * self._wide).sum(axis=1, keepdims=True)
        made = np.maximum(made + over * (self._wide - wide), 0)
        mean = (self.part * alone).sum(axis=1)
        again = np.divide(kept, mean, out=np.ones(len(kept)), where=mean > 0)
        least: F64 = np.minimum(made, alone * again[:, None])
        return np.where(self._sparse, least, made)

    def _of_strength(self, kept: F64) -> F64:
        """`supposed`, of tails as strong as make the deltas of a sum keep together `kept`."""
        least, most, few = np.zeros(len(kept)), np.ones(len(kept)), self._few()
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            more = (self.part * self._kept_of(middle[:, None] * few)).sum(axis=1) > kept
            least, most = np.where(more, middle, least), np.where(more, most, middle)
        made = self._kept_of((least + most)[:, None] / 2 * few)
        mean = (self.part * made).sum(axis=1)
        again = np.divide(kept, mean, out=np.ones(len(kept)), where=mean > 0)
        fitted: F64 = made * again[:, None]
        return fitted

    def _variances(self, strength: F64) -> tuple[F64, F64]:
        """Of both Gaussians of every delta, in that of the sum."""
        low, high = (self.part * (1 + strength * (one - 1)) for one in (self.low, self.high))
        return low, high
