"""The largest singular value of a matrix that is only ever seen in strips of rows."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from randes_cli.core.arrays import F64


def largest_singular(gram: Callable[[F64], F64], columns: int, *, steps: int) -> float:
    """σ_max of a matrix E with that many columns; `gram` maps v to Eᵀ E v in one pass.

    Power iteration that keeps all its vectors (Lanczos, each new vector made orthogonal to all
    before): the largest Ritz value after `steps` passes bounds σ_max² from below and, where no
    value stands out, is some per cent off after a dozen. The start is fixed.
    """
    start = np.cos(np.arange(1, columns + 1) * sqrt(2.0))  # meets no pattern of a real matrix
    vectors = [start / np.linalg.norm(start)]
    steps = min(steps, columns)
    small = np.zeros((steps, steps))
    for step in range(steps):
        image = gram(vectors[-1])
        for place, vector in enumerate(vectors):
            small[place, step] = small[step, place] = vector @ image
        for _ in range(2):  # once leaves rounding errors that grow
            for vector in vectors:
                image = image - (vector @ image) * vector
        length = float(np.linalg.norm(image))
        if length <= 1e-10 * max(1e-300, float(np.abs(small).max())) or step + 1 == steps:
            small = small[: step + 1, : step + 1]
            break
        vectors.append(image / length)
    return sqrt(max(0.0, float(np.linalg.eigvalsh(small)[-1])))


def random_bound(rms: float, rows: int, columns: int) -> float:
    """σ (√m + √n): where the spectrum of a random m × n matrix with entries of size σ ends."""
    return rms * (sqrt(rows) + sqrt(columns))
