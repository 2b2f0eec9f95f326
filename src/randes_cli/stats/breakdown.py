"""A bank's statistics by layer type or by layer: where the energy is and where tasks suffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.columns import columns
from randes_cli.core.prediction import Moments, predict
from randes_cli.core.shuffle import layer_numbers, layer_types
from randes_cli.core.stats import cosines
from randes_cli.files.bank.file import BankFile
from randes_cli.plan import superposable
from randes_cli.stats.grams import summed
from randes_cli.stats.lengths import bank_lengths, norm_rows
from randes_cli.stats.stored import Statistics


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The tensors of one type or one layer.

    Attributes:
        share: of all delta energy, 0 to 1.
        predicted_cosine: mean over the tasks that changed something here.
        predicted_error: root mean square over them of ‖Δ̂ − Δ‖ / ‖Δ‖ at λ = 1.
        before: mean |cosine| between different tasks' deltas as they are.
        during: the same as they meet in retrieval; both None where only coarser is stored.
    """

    name: str
    tensors: int
    elements: int
    share: float
    predicted_cosine: float
    predicted_error: float
    before: float | None
    during: float | None


def _layers(names: Sequence[str]) -> list[str]:
    found = (next(iter(layer_numbers(name)), None) for name in names)
    return ["outside the layers" if one is None else f"layer {one}" for one in found]


#: How `--by` names the rows of its table, of tensors by name.
GROUPINGS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "type": layer_types,
    "layer": _layers,
}


class Breakdown:
    """The statistics of an open bank, cut into groups of tensors."""

    def __init__(self, bank: BankFile, statistics: Statistics, by: str) -> None:
        self.statistics = statistics
        tensors = bank.manifest.base.tensors
        met = statistics.met(tensors)
        #: What is predicted of every tensor and task.
        self.found = predict(bank_lengths(bank.manifest, statistics.known), met)
        names, self._cell_of = norm_rows(tensors), met.cell_of
        #: Tensors that lie in no cell, and in each.
        self._rows_in = np.bincount(self._cell_of + 1)
        shapes = columns(tensors)
        self._elements = shapes.of(attrgetter("elements"))[shapes.where(superposable)]
        rows: dict[str, list[int]] = {}
        for row, group in enumerate(GROUPINGS[by](names)):
            rows.setdefault(group, []).append(row)
        changed = self.found.changed
        self.rows = {n: np.array(r) for n, r in rows.items() if changed[r].any()}

    def moments(self, name: str) -> tuple[Moments, F64 | None]:
        """Of every task on one group: its moments, and 2 × T × T Gram matrices where stored."""
        return self.found.over(self.rows[name]), self.grams[1].get(name)

    @cached_property
    def grams(self) -> tuple[F64, dict[str, F64]]:
        """The Gram matrices of all, and of groups whose cells are theirs alone: 2 × T × T."""
        group_of = np.full(len(self.statistics.cells), -1, np.int64)
        names = list[str]()
        for name, rows in self.rows.items():
            ours = np.bincount(self._cell_of[rows] + 1, minlength=len(self._rows_in))
            cells = np.flatnonzero(ours) - 1
            shared = ours[cells + 1] < self._rows_in[cells + 1]
            if len(cells) and not shared.any() and cells[0] >= 0:
                group_of[cells] = len(names)
                names.append(name)
        whole, found = summed(self.statistics.grams, group_of, len(names))
        return whole, dict(zip(names, found, strict=True))

    def whole(self) -> Moments:
        return self.found.over()

    def row(self, name: str) -> GroupRow:
        rows = self.rows[name]
        found, grams = self.moments(name)
        there = found.changed
        errors = found.error(np.ones(len(there)))[there]
        return GroupRow(
            name=name,
            tensors=len(rows),
            elements=int(self._elements[rows].sum()),
            share=float(found.own.sum()) / (float(self.statistics.known.norms.sum()) or 1.0),
            predicted_cosine=float(found.cosine[there].mean()),
            predicted_error=float(np.sqrt(np.square(errors).mean())),
            before=None if grams is None else off_diagonal(grams[0]),
            during=None if grams is None else off_diagonal(grams[1]),
        )

    def task_row(self, name: str, column: int) -> GroupRow | None:
        """One group as one task (a column of the statistics) meets it; None where unchanged."""
        found, grams = self.moments(name)
        if not found.changed[column]:
            return None
        rows = self.rows[name][self.found.changed[self.rows[name], column]]
        norms = self.statistics.known.norms
        pair = [None, None] if grams is None else [_others(gram, column) for gram in grams]
        return GroupRow(
            name=name,
            tensors=len(rows),
            elements=int(self._elements[rows].sum()),
            share=float(found.own[column]) / (float(norms[:, column].sum()) or 1.0),
            predicted_cosine=float(found.cosine[column]),
            predicted_error=float(found.error(np.ones(len(found.own)))[column]),
            before=pair[0],
            during=pair[1],
        )


def off_diagonal(gram: F64) -> float:
    """Mean |cosine| between different tasks that both changed something."""
    there = np.diag(gram) > 0
    pairs = np.outer(there, there) & ~np.eye(len(gram), dtype=bool)
    return float(np.abs(cosines(gram)[pairs]).mean()) if pairs.any() else 0.0


def _others(gram: F64, column: int) -> float:
    """Mean |cosine| of one task with every other that changed something."""
    there = np.diag(gram) > 0
    there[column] = False
    return float(np.abs(cosines(gram)[column][there]).mean()) if there.any() else 0.0
