"""How heavy the tails of a delta are: what decides how much of it a cut to few bits keeps."""

from __future__ import annotations

from math import pi

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.compiled.sample import moments

#: Bits of the largest magnitude, of 2^18, whose fourth powers are summed: 2^62 with 2^14 of them.
_COARSE = 6
#: How many times a sample's energy the whole may have for the sample to stand for it.
_ALIKE = 2.0


def means(units: F64, scales: F64) -> F64:
    """Means of |x|, x² and x⁴ over samples, and their size: 4 × samples, of which each is a row.

    x are integers below 2^18 in `scales`; x⁴ is of x rounded to 2^6 units, so that all sums are of
    integers and exact.
    """
    count = max(1, units.shape[1])
    found = moments(units[0], _COARSE) if len(units) == 1 else None
    first, second, fourth = _sums(units) if found is None else np.array(found, np.float64)[:, None]
    fourth = fourth * 2.0 ** (4 * _COARSE)
    square, size = scales * scales, np.full(len(units), float(units.shape[1]))
    return np.stack(
        [first * scales / count, second * square / count, fourth * square**2 / count, size]
    )


def _sums(units: F64) -> tuple[F64, F64, F64]:
    coarse = np.rint(units / 2**_COARSE).astype(np.int64)
    squares = coarse * coarse
    fourth = np.einsum("kn,kn->k", squares, squares).astype(np.float64)
    return np.abs(units).sum(axis=1), np.einsum("kn,kn->k", units, units), fourth


def tails(sampled: F64, energy: F64) -> F64:
    """(π/2) E[|x|]² / E[x²] and E[x⁴] / (3 E[x²]²): 1 and 1 for a Gaussian; 2 × T.

    `sampled` is `means` of T deltas, `energy` the exact means of x². Where a sample has less than
    half of it, the rest lies in elements that the sample missed: in as few as one in its size.
    """
    first, second, fourth, size = sampled
    rest = np.where(energy > _ALIKE * second, energy - second, 0.0)
    size = np.maximum(size, 1.0)
    whole = second + rest
    first, fourth = first + np.sqrt(rest / size), fourth + rest * rest * size
    made, there = np.zeros((2, *whole.shape)), whole > 0
    np.divide(pi / 2 * first * first, whole, out=made[0], where=there)
    np.divide(fourth / 3, whole * whole, out=made[1], where=there)
    return made
