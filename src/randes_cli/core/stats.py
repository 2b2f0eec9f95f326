"""What to expect of a retrieval, from norms and Gram matrices of the deltas."""

from __future__ import annotations

from math import sqrt

import numpy as np

from randes_cli.core.arrays import F64

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
    with 32, which only tuning finds.
    """
    return min(1.0, round(cosine * sqrt(MOST_NOISE), 2)) if cosine > 0 else 1.0


def predicted_cosine(squares: F64, met: F64, task: int, kept: F64 | None = None) -> float:
    """cos(Δ_i, Δ̂_i) of one task, 0 to 1, from stored statistics.

    `squares` is tensors × T of ‖Δ_j‖² on the tensors that task i changed; `met` is the T × T
    Gram matrix of the transformed deltas there. Since O is orthogonal, ⟨Δ_i, Δ̂_i⟩ =
    Σ_j ⟨O_i Δ_i, O_j Δ_j⟩ and ‖Δ̂_i‖² = Σ_jk ⟨O_j Δ_j, O_k Δ_k⟩, whatever the task (paper
    equation 6). Where the transform decorrelates, this is ‖Δ_i‖ / √(Σ_j ‖Δ_j‖²).

    Of a sealed sum, `kept` has what share of each tensor's energy its levels keep, 1 − D. The
    levels are means of their cells, so ⟨x, Q(S)⟩ = (1 − D)⟨x, S⟩ for any x that is jointly
    Gaussian with S, and ‖Q(S)‖² = (1 − D)‖S‖². Scales carry the gain 1 / (1 − D): then the first
    is ⟨x, S⟩ and the second ‖S‖² / (1 − D).
    """
    norms = squares.sum(axis=0)
    if norms[task] <= 0:
        return 1.0
    whole = met - np.diag(np.diag(met)) + np.diag(norms)
    length = float(whole.sum())
    if kept is not None:
        length *= float((squares.sum(axis=1) / kept).sum()) / float(norms.sum())
    if length <= 0:
        return 0.0
    value = float(whole[task].sum()) / float(np.sqrt(norms[task] * length))
    return max(-1.0, min(1.0, value))
