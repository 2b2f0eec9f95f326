"""What to make of cosines: those of pairs, the default λ, and when a delta is lost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import erfc, exp, pi, sqrt

import numpy as np

from randes_cli.core.arrays import F64, Bools

#: Energy of a retrieval, in units of the delta's own, that a model bears without loss.
MOST_NOISE = 64.0


def cosines(gram: F64) -> F64:
    """Pairwise cosines of a T × T Gram matrix; a zero delta has cosine 0 with every other."""
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    scale = np.outer(norms, norms)
    made = np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)
    clipped: F64 = np.clip(made, -1.0, 1.0)
    return clipped


def default_coefficient(cosine: float) -> float:
    """λ of a task that nobody tuned, from the predicted cosine of its retrieval.

    1/cos² is how many times the delta's energy comes back: the number of tasks of its group,
    where all are alike. Measured on a text encoder and a vision model, λ = 1 is best up to 32
    tasks, 0.8 to 0.9 with 64 and 0.7 to 0.8 with 96, as if a model bore the noise of about sixty
    deltas and no more: so λ² / cos² is held at 64. (The λ of the least square error, cos², would
    be 1/8 with eight tasks: far too small, for interference is noise that a network averages
    out, and a shrunken delta is not.) Networks differ: a decoder wanted 0.8 with 16 tasks and 0.6
    with 32, which only tuning finds. A delta that is lost altogether gets 0: its task comes back
    as the base, rather than as the base and others' noise.
    """
    return min(1.0, max(0.0, round(cosine * sqrt(MOST_NOISE), 2)))


def near(changed: Bools, groups: Sequence[int]) -> F64:
    """How many tasks of its group changed what each task did: of tensors × T, or of T."""
    made = np.zeros(changed.shape)
    for group in set(groups):
        members = np.flatnonzero(np.asarray(groups) == group)
        made[..., members] = changed[..., members].sum(axis=-1, keepdims=True)
    return made


def is_lost(cosine: F64, tasks: F64) -> Bools:
    """Whether a delta comes back under more noise than a model bears, and than its share is.

    `tasks` are those of its group that changed something: as many deltas of one length have
    1/√tasks each. What is predicted at a quarter of it lies under longer ones, or fell to rounding.
    """
    share = 0.25 / np.sqrt(np.maximum(1.0, tasks))
    return np.asarray((cosine < 1 / sqrt(MOST_NOISE)) & (cosine < share))


def _gaussian(sigma: float) -> tuple[float, float]:
    """E[x·q] and E[q²] over E[x²], of x ~ N(0, σ²) rounded to the integer q.

    E[x·q] = σ² Σ_k f(k + ½) over all integers k, f being the density; q² = Σ (2k + 1) over
    0 ≤ k < |q|.
    """
    halves = [k + 0.5 for k in range(int(8 * sigma) + 2)]
    density = sum(exp(-((h / sigma) ** 2) / 2) for h in halves) / (sigma * sqrt(2 * pi))
    tails = sum(2 * h * erfc(h / sigma / sqrt(2)) for h in halves)
    return 2 * density, tails / sigma**2


_SIGMAS = np.geomspace(2.0**-4, 2.0**4, 129)


@cache
def _rounded() -> F64:
    """`_gaussian` of `_SIGMAS`."""
    made: F64 = np.array([_gaussian(sigma) for sigma in _SIGMAS.tolist()]).T
    return made


def rounding_of(sigma: F64) -> tuple[F64, F64]:
    """⟨Δ, q⟩ / ‖Δ‖² and ‖q‖² / ‖Δ‖² of Gaussian deltas whose RMS is `sigma` steps."""
    at = np.log(np.maximum(sigma, _SIGMAS[0]))
    kept, rounded = (np.interp(at, np.log(_SIGMAS), values) for values in _rounded())
    return kept, rounded
