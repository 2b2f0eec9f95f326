"""How alike deltas are within a model and across models (paper, Figure 2), kept as JSON."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
from beds import CACHE, Bed
from methods import F32, Models

from randes_cli.core.shuffle import group_by_type
from randes_cli.specs import TensorInfo


def _cosine(left: F32, right: F32) -> float:
    lengths = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float(np.vdot(left, right)) / lengths if lengths else 0.0


def similarities(bed: Bed) -> dict[str, list[float]]:
    """Cosines of matrices: of one type in two layers of one model, of one layer in two models."""
    path = CACHE / "cells" / f"{bed.name}-similarities.json"
    if path.exists():
        found: dict[str, list[float]] = json.loads(path.read_text("utf-8"))
        return found
    models = Models(bed)
    infos = [TensorInfo(name, "F32", models.shapes[name]) for name in models.matrices()]
    types = [names for names in group_by_type(infos).values() if len(names) > 1]
    within = [
        _cosine(delta[one], delta[other])
        for delta in models.deltas.values()
        for names in types
        for one, other in combinations(names, 2)
    ]
    across = [
        _cosine(one[name], other[name])
        for names in types
        for name in names
        for one, other in combinations(models.deltas.values(), 2)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"within": within, "across": across}), "utf-8")
    return {"within": within, "across": across}
