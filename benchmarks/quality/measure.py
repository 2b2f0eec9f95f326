"""Cells: one method on one bed with one seed, measured once and kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

from beds import CACHE, TEST, VALIDATION, Bed
from methods import Method, Models, Packed


@dataclass(frozen=True)
class Cell:
    """What one run found.

    Attributes:
        nbytes: of everything that is stored, the base included.
        curve: validation mean by knob, for the knobs that were tried.
        knob: the best of them, or where none was tried the mean of the bank's defaults.
        scores: test score by task at that knob.
        cosines: cos(Δ, Δ̂) by task at that knob.
        facts: of a bank, what it was packed with and the noise of its tasks.
    """

    bed: str
    method: str
    family: str
    seed: int
    nbytes: int
    base_bytes: int
    curve: Mapping[str, float]
    knob: float
    scores: Mapping[str, float]
    seconds: float
    cosines: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean test score."""
        return sum(self.scores.values()) / len(self.scores)


def cell_path(bed: str, method: str, seed: int) -> Path:
    """Where a cell is kept."""
    return CACHE / "cells" / bed / f"{method.replace('/', '-').replace(' ', '_')}@{seed}.json"


def read_cells(bed: str) -> list[Cell]:
    """All cells of a bed that have been measured."""
    paths = sorted((CACHE / "cells" / bed).glob("*.json"))
    return [Cell(**json.loads(path.read_text("utf-8"))) for path in paths]


def _validate(bed: Bed, packed: Packed, tasks: list[str], knob: float) -> float:
    scores = [bed.evaluate(packed.restore(task, knob), task, VALIDATION) for task in tasks]
    return sum(scores) / len(scores)


def search(bed: Bed, packed: Packed, method: Method, tasks: list[str]) -> dict[float, float]:
    """Validation mean by knob, from the first on; nothing where no knob is to be tried.

    Unless the whole curve is wanted, as of λ, stops at the first knob that comes out below the
    best.
    """
    curve: dict[float, float] = {}
    for knob in method.knobs:
        if len(method.knobs) == 1:
            return {knob: 0.0}
        curve[knob] = _validate(bed, packed, tasks, knob)
        whole = method.curve and (bed.curves or method.family == "λ")
        if not whole and curve[knob] < max(curve.values()):
            break
    return curve


def measure(models: Models, method: Method, seed: int) -> Cell:
    """The cell of a method and a seed; taken from the cache where it is there."""
    bed = models.bed
    path = cell_path(bed.name, method.name, seed)
    if path.exists():
        return Cell(**json.loads(path.read_text("utf-8")))
    start = perf_counter()
    packed = method.build(models, seed)
    tasks = models.tasks[: method.tasks]
    curve = search(bed, packed, method, tasks)
    best = max(curve, key=lambda knob: curve[knob]) if curve else None
    knobs = {task: packed.defaults[task] if best is None else best for task in tasks}
    scores, cosines = {}, {}
    for task in tasks:
        state = packed.restore(task, knobs[task])
        scores[task] = bed.evaluate(state, task, TEST)
        cosines[task] = models.cosine(task, state)
    cell = Cell(
        bed.name,
        method.name,
        method.family,
        seed,
        packed.nbytes,
        models.base_bytes,
        {str(knob): score for knob, score in curve.items()},
        mean(knobs.values()),
        scores,
        perf_counter() - start,
        cosines,
        packed.facts,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(cell), indent=1), "utf-8")
    unfinished.replace(path)
    return cell
