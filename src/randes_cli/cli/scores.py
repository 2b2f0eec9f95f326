"""Tables of scores: curves of λ, and tasks beside their originals."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.render.layout import Column, table

if TYPE_CHECKING:
    from randes_cli.ops.evaluate import EvaluateReport, TaskScore
    from randes_cli.ops.tune import TuneReport

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = ("task", "λ", "retrieved", "original", "normalised", "base")


def sparkline(scores: list[float]) -> str:
    """A curve in one line: the lowest score is the lowest bar."""
    low, high = min(scores), max(scores)
    whole = (high - low) or 1.0
    return "".join(_BARS[round((score - low) / whole * (len(_BARS) - 1))] for score in scores)


def tuning_table(report: TuneReport, width: int) -> list[Text]:
    """Each task's curve, the λ recorded, and its score there."""
    grid = [coefficient for coefficient, _ in report.tasks[0].curve]
    columns = [Column("task", name=True), Column(f"λ {grid[0]:g} … {grid[-1]:g}")]
    columns += [Column("lowest", drop=2), Column("highest", drop=1), Column("λ"), Column("score")]
    rows: list[list[str | Text]] = []
    for task in report.tasks:
        scores = [score for _, score in task.curve]
        numbers = (min(scores), max(scores), task.coefficient, task.score)
        rows.append([task.task, sparkline(scores), *(f"{number:.4g}" for number in numbers)])
    return table(columns, rows, width)


def _cells(score: TaskScore) -> list[str]:
    numbers = (score.retrieved, score.original, score.normalised, score.base)
    return [
        score.task,
        f"{score.coefficient:.3g}",
        *("" if number is None else f"{number:.4f}" for number in numbers),
    ]


def score_table(report: EvaluateReport, width: int) -> list[Text]:
    columns = [Column(name, name=name == "task") for name in _COLUMNS]
    rows: list[list[str | Text]] = []
    for score in (*report.tasks, report.mean):
        rows.append([cell or "-" for cell in _cells(score)])
    return table(columns, rows, width)


def scores_as_csv(report: EvaluateReport) -> str:
    """One row a task, full precision, empty where there is no score."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "lambda", *_COLUMNS[2:]])
    for s in report.tasks:
        numbers = (s.coefficient, s.retrieved, s.original, s.normalised, s.base)
        writer.writerow([s.task, *("" if n is None else repr(n) for n in numbers)])
    return out.getvalue()


def scores_as_markdown(report: EvaluateReport) -> str:
    """The table as the paper has it, the mean last."""
    rows = [list(_COLUMNS), ["---", *["---:"] * (len(_COLUMNS) - 1)]]
    rows += [_cells(score) for score in (*report.tasks, report.mean)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
