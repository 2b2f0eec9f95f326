"""Tables of tasks and of groups of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from randes_cli.cli.render.layout import (
    Column,
    bar,
    in_lines,
    more,
    shorten,
    table,
    verdict_style,
)
from randes_cli.core.prediction.verdict import (
    BEYOND,
    by_word,
    judge,
    kept,
    percent,
    share,
    unmeasured,
)
from randes_cli.stats.frontier import frontier
from randes_cli.views.text import decimal, human

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport, TaskDetail
    from randes_cli.reports import Alternative, TaskSummary
    from randes_cli.stats.breakdown import GroupRow


#: Rows that a table has without --full.
MOST_TASKS, MOST_ROWS = 20, 12
#: Cells of a bar.
BAR = 20


def task_order(report: BankReport, sort: str | None, *, full: bool) -> list[int]:
    """The places of the tasks in the order asked for.

    Without one by index, or, where not all would be shown, those that suffer most first.
    """
    if sort is None:
        sort = usual_order(report.tasks, full=full)
    keys: dict[str, Callable[[int], Any]] = {
        "index": lambda n: report.tasks[n].index,
        "quality": lambda n: report.tasks[n].predicted_cosine,
        "energy": lambda n: -report.details[n].norm,
        "size": lambda n: -report.details[n].own_bytes,
        "name": lambda n: report.tasks[n].name,
    }
    return sorted(range(len(report.tasks)), key=keys[sort])


def usual_order(tasks: Sequence[TaskSummary], *, full: bool) -> str:
    return "index" if full or len(tasks) <= MOST_TASKS else "quality"


def worst_first(tasks: Sequence[TaskSummary], *, full: bool) -> list[TaskSummary]:
    """Tasks by index or, where not all would be shown, those that suffer most first."""
    if usual_order(tasks, full=full) == "index":
        return list(tasks)
    return sorted(tasks, key=lambda task: task.predicted_cosine)


def row_order(rows: Sequence[GroupRow], sort: str | None) -> list[GroupRow]:
    """Groups of tensors in the order asked for; those that suffer most first without one."""
    keys: dict[str, Callable[[GroupRow], Any]] = {
        "index": lambda row: 0,
        "quality": lambda row: (row.predicted_cosine, row.name),
        "energy": lambda row: (-row.share, row.name),
        "size": lambda row: (-row.elements, row.name),
        "name": lambda row: row.name,
    }
    return sorted(rows, key=keys[sort or "quality"])


def task_lines(
    tasks: Sequence[TaskSummary], details: Sequence[TaskDetail], *, full: bool, width: int
) -> list[Text]:
    """The table of tasks; `details` may be empty, as before a bank is written."""
    differ = len({task.verdict for task in tasks}) > 1
    columns = [
        Column("task", name=True),
        Column("index", drop=4),
        *([Column("keeps", drop=2)] if differ else []),
        Column("predicted cosine"),
        Column(""),
    ]
    if details:
        columns += [Column("rel. error", drop=2), Column("nearest", name=True, drop=3)]
    columns += [Column("λ", drop=1), Column("summed", drop=5)]
    optional = [("own", "own"), ("unchanged", "unchanged"), ("missing", "missing")]
    optional = [pair for pair in optional if any(getattr(task, pair[1]) for task in tasks)]
    columns += [Column(title, drop=6) for title, _ in optional]
    several = len({task.group for task in tasks}) > 1
    columns += [Column("group")] if several else []
    rows = []
    for place, task in enumerate(tasks if full else tasks[:MOST_TASKS]):
        style = verdict_style(by_word(task.verdict))
        row: list[str | Text] = [
            task.name,
            str(task.index),
            *([kept(task)] if differ else []),
            decimal(task.predicted_cosine, 3),
            bar(task.predicted_cosine, BAR if width >= 90 else BAR // 2, style),
        ]
        if details:
            detail = details[place]
            near = "" if detail.nearest is None else shorten(detail.nearest, 14)
            cosine = detail.nearest_cosine
            row += [
                f"{detail.predicted_error:.2f}",
                near if cosine is None else f"{decimal(cosine, 2):>5} {near}",
            ]
        row += [f"{task.coefficient:g}", str(task.superposed)]
        row += [str(getattr(task, field)) for _, field in optional]
        row += [str(task.group)] if several else []
        rows.append(row)
    made = table(columns, rows, width)
    return made if full or len(tasks) <= MOST_TASKS else [*made, more(len(tasks) - MOST_TASKS)]


def group_lines(
    rows: Sequence[GroupRow], by: str, sort: str | None, *, full: bool, width: int
) -> list[Text]:
    """Types or layers of tensors, those that suffer most first."""
    found = row_order(rows, sort)
    columns = [
        Column("layer" if by == "layer" else "type of tensor", name=True),
        Column("cosine"),
        Column(""),
        Column("rel. error", drop=1),
        Column("energy"),
        Column("before"),
        Column("during"),
        Column("tensors", drop=2),
        Column("elements", drop=3),
    ]
    cells: list[list[str | Text]] = []
    for row in found if full else found[:MOST_ROWS]:
        style = verdict_style(judge(row.predicted_cosine))
        pair = ["-" if v is None else decimal(v, 3) for v in (row.before, row.during)]
        cells.append(
            [
                row.name,
                decimal(row.predicted_cosine, 3),
                bar(row.predicted_cosine, 8, style),
                f"{row.predicted_error:.2f}",
                percent(row.share),
                *pair,
                f"{row.tensors:,}",
                f"{row.elements:,}",
            ]
        )
    by_words = "most interference first" if sort in (None, "quality") else f"by {sort}"
    title = f"predicted by {'layer' if by == 'layer' else 'type'} at λ = 1, {by_words}"
    made = [Text(part, "bold") for part in in_lines(title, width)]
    made += table(columns, cells, width)
    return made if full or len(found) <= MOST_ROWS else [*made, more(len(found) - MOST_ROWS)]


#: Titles, and which column goes first on a narrow terminal.
_HEADS = (
    ("× base", 2),
    ("bits", 0),
    ("groups", 0),
    ("elements", 0),
    ("gain kept", 0),
    ("in measured families", 1),
)


def choice_table(
    choices: Sequence[Alternative], base_bytes: int, tasks: Sequence[TaskSummary], width: int
) -> list[Text]:
    """Bytes and predicted share of the gain of the best choices; ``*`` marks the bank at hand."""
    best = frontier(choices)
    room = max((len(human(one.bank_bytes)) for one in best), default=0)
    rows: list[list[str | Text]] = [
        [
            ("*" if one.present else " ") + human(one.bank_bytes).rjust(room),
            f"{one.bank_bytes / max(1, base_bytes):.3f}",
            str(one.bits),
            str(one.groups),
            f"1/{one.share}" if one.share > 1 else "all",
            percent(one.kept),
            share((one.kept_low, one.kept_high), 1),
        ]
        for one in best
    ]
    columns = [Column(head, drop=drop) for head, drop in _HEADS]
    title = "what other banks would keep of the gain, predicted (* this one)"
    about = ["the sizes of others are estimates"] * (not all(one.exact for one in best))
    about += ["what few bits keep is approximate"] * any(one.approximate for one in best)
    about += [BEYOND] * unmeasured(tasks)
    head = [Text(part, "bold") for part in in_lines(title, width)]
    head += [Text(part) for part in in_lines("; ".join(about), width) if about]
    return [*head, *table([Column("bank", name=True), *columns], rows, width)]
