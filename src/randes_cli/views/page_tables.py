"""The tables of the page: what stands in each cell, and the number it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from randes_cli.core.prediction.verdict import BEYOND, kept, percent, share, unmeasured
from randes_cli.errors import printable
from randes_cli.ops.describe import BankReport
from randes_cli.stats.breakdown import GroupRow
from randes_cli.stats.frontier import frontier
from randes_cli.views.text import human

#: Rows of a table of types or layers; those with the most energy are kept.
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its words, the number that it is sorted by (None: its words), a bar's length."""

    text: str
    value: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort; `here` are rows in bold."""

    key: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    here: Sequence[int] = ()
    note: str = ""

    @cached_property
    def names(self) -> set[int]:
        every = range(len(self.heads))
        return {n for n in every if all(row[n].value is None for row in self.rows)}


def _number(value: float | None, form: str) -> Cell:
    return Cell("–", -1e308) if value is None else Cell(format(value, form), value)


def _percent(value: float | None) -> Cell:
    return Cell("–", -1e308) if value is None else Cell(percent(value), value)


def _count(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _bytes(size: int) -> Cell:
    return Cell(human(size), size)


def _quality(value: float) -> Cell:
    return Cell(f"{value:.3f}", value, max(0.0, min(1.0, value)))


def task_table(report: BankReport) -> Table:
    """What is known of each task, what matters most first."""
    heads = ["task", "accuracy kept", "predicted cosine", "gain kept", "rel. error", "λ"]
    heads += ["nearest task"]
    heads += ["cosine to it", "group", "index", "checkpoint", "own bytes", "summed", "own"]
    heads += ["unchanged", "missing", "source"]
    rows = []
    for task, detail in zip(report.tasks, report.details, strict=True):
        counts = (task.superposed, task.own, task.unchanged, task.missing)
        rows.append(
            [
                Cell(printable(task.name)),
                Cell(kept(task), -1e308 if task.expected is None else task.expected[0]),
                _quality(task.predicted_cosine),
                _percent(task.kept),
                _number(detail.predicted_error, ".2f"),
                _number(task.coefficient, "g"),
                Cell(printable(detail.nearest or "–")),
                _number(detail.nearest_cosine, ".4f"),
                _count(detail.group),
                _count(task.index),
                _bytes(detail.checkpoint_bytes),
                _bytes(detail.own_bytes),
                *map(_count, counts),
                Cell(printable(detail.source)),
            ]
        )
    return Table("tasks", "Tasks", heads, rows)


def group_table(key: str, title: str, rows: Sequence[GroupRow]) -> Table:
    """Types or layers of tensors; of very many those with the most energy."""
    kept_rows = sorted(rows, key=lambda row: -row.share)[:MOST_ROWS]
    if len(kept_rows) == len(rows):
        kept_rows = list(rows)
    heads = [title, "predicted cosine", "rel. error", "energy", "before", "during"]
    cells = [
        [
            Cell(printable(row.name)),
            _quality(row.predicted_cosine),
            _number(row.predicted_error, ".2f"),
            _percent(row.share),
            _number(row.before, ".4f"),
            _number(row.during, ".4f"),
            _count(row.tensors),
            _count(row.elements),
        ]
        for row in kept_rows
    ]
    left = len(rows) - len(kept_rows)
    note = f"{left:,} more have less energy." if left else ""
    return Table(key, title, [*heads, "tensors", "elements"], cells, note=note)


def choice_table(report: BankReport) -> Table:
    """The banks of these tasks than which none keeps as much for less; this one in bold."""
    found = frontier(report.alternatives)
    rows = [
        [
            _bytes(one.bank_bytes),
            _number(one.bank_bytes / max(1, report.base_bytes), ".3f"),
            _count(one.bits),
            _count(one.groups),
            Cell(f"1/{one.share}" if one.share > 1 else "all", 1 / one.share),
            Cell(percent(one.kept), one.kept, one.kept),
            Cell(share((one.kept_low, one.kept_high), 1), one.kept_low),
        ]
        for one in found
    ]
    here = [n for n, one in enumerate(found) if one.present]
    heads = ["bank", "× base", "bits", "groups", "elements", "gain kept", "in measured families"]
    exact = all(one.exact for one in found)
    note = "" if exact else "The bytes of other banks than this one are estimates."
    if any(one.approximate for one in found):
        note = f"{note} What few bits keep of such deltas (sparse, with outliers) is approximate."
    if unmeasured(report.tasks):
        note = f"{note} {BEYOND[0].upper()}{BEYOND[1:]}."
    return Table("choices", "Choices", heads, rows, here, note=note)
