"""What to expect of a retrieval, from norms and Gram matrices of the deltas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def cosines(gram: F64) -> F64:
    """Pairwise cosines of a T × T Gram matrix; a zero delta has cosine 0 with every other."""
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    scale = np.outer(norms, norms)
    made = np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)
    clipped: F64 = np.clip(made, -1.0, 1.0)
    return clipped


def predicted_cosine(squares: F64, met: F64, task: int) -> float:
    """cos(Δ_i, Δ̂_i) of one task, 0 to 1, from stored statistics.

    `squares` is tensors × T of ‖Δ_j‖² on the tensors that task i changed; `met` is the T × T
    Gram matrix of the transformed deltas there. Since O is orthogonal, ⟨Δ_i, Δ̂_i⟩ =
    Σ_j ⟨O_i Δ_i, O_j Δ_j⟩ and ‖Δ̂_i‖² = Σ_jk ⟨O_j Δ_j, O_k Δ_k⟩, whatever the task (paper
    equation 6). Where the transform decorrelates, this is ‖Δ_i‖ / √(Σ_j ‖Δ_j‖²).
    """
    norms = squares.sum(axis=0)
    if norms[task] <= 0:
        return 1.0
    whole = met - np.diag(np.diag(met)) + np.diag(norms)
    length = float(whole.sum())
    if length <= 0:
        return 0.0
    value = float(whole[task].sum()) / float(np.sqrt(norms[task] * length))
    return max(-1.0, min(1.0, value))
