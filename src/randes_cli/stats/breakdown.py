"""A bank's statistics by layer type or by layer: where the energy is and where tasks suffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np

from randes_cli.core.arrays import F64, I64
from randes_cli.core.columns import columns
from randes_cli.core.prediction.cosines import cosines
from randes_cli.core.prediction.crossing import Grams
from randes_cli.core.prediction.formula import Moments, predict
from randes_cli.core.shuffle import layer_numbers, layer_types
from randes_cli.files.bank.file import BankFile
from randes_cli.plan import superposable
from randes_cli.stats.grams import Summing
from randes_cli.stats.lengths import bank_lengths, norm_rows
from randes_cli.stats.stored import Statistics, cells_of


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
        lengths = bank_lengths(bank.manifest, statistics.known)
        names = norm_rows(tensors)
        cell_of = cells_of(names, statistics.cells)
        shapes = columns(tensors)
        self._elements = shapes.of(attrgetter("elements"))[shapes.where(superposable)]
        kinds = GROUPINGS[by](names)
        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
        of = np.fromiter(map(numbers.__getitem__, kinds), np.intp, len(kinds))
        rows = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
        found = zip(numbers, rows, strict=False)  # of no names there is an empty part
        self.rows = {name: some for name, some in found if lengths.changed[some].any()}
        self._alone = list(self._with_cells(cell_of))
        group_of = np.full(len(statistics.cells), -1, np.int64)
        for number, name in enumerate(self._alone):
            group_of[cell_of[self.rows[name]]] = number
        self._sums = Summing(statistics.grams, group_of, len(self._alone))
        #: What is predicted of every tensor and task.
        self.found = predict(lengths, Grams(self._sums, cell_of))

    def _with_cells(self, cell_of: I64) -> Iterator[str]:
        """The groups whose cells are theirs alone."""
        most = np.bincount(cell_of + 1)
        for name, rows in self.rows.items():
            ours = np.bincount(cell_of[rows] + 1, minlength=len(most))
            cells = np.flatnonzero(ours)
            if len(cells) and cells[0] > 0 and not (ours[cells] < most[cells]).any():
                yield name

    def moments(self, name: str) -> tuple[Moments, F64 | None]:
        """Of every task on one group: its moments, and 2 × T × T Gram matrices where stored."""
        return self.found.over(self.rows[name]), self.grams[1].get(name)

    @cached_property
    def grams(self) -> tuple[F64, dict[str, F64]]:
        """The Gram matrices of all, and of groups whose cells are theirs alone: 2 × T × T."""
        whole, found = self._sums.sums()
        return whole, dict(zip(self._alone, found, strict=True))

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
