"""What `inspect` shows of a bank and of one of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.text import Text

from randes_cli.cli.render.choices import choice_table
from randes_cli.cli.render.heat import heatmaps
from randes_cli.cli.render.layout import (
    GOOD_FROM,
    MIDDLING_FROM,
    Column,
    bar,
    more,
    quality_style,
    shorten,
    table,
)
from randes_cli.errors import printable
from randes_cli.views.text import decimal, human, times

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport, TaskDetail
    from randes_cli.reports import TaskSummary
    from randes_cli.stats.breakdown import GroupRow

_MOST_TASKS = 20
#: Tasks of which `inspect` says that they do not come back.
_MOST_LOST = 10
_MOST_ROWS = 12
_MOST_MATRIX = 12
_BAR = 20


def _fields(pairs: Sequence[tuple[str, str]], width: int) -> list[Text]:
    label = max(len(name) for name, _ in pairs)
    return [
        Text.assemble((f"{name:{label}}  ", "bold"), shorten(value, width - label - 2))
        for name, value in pairs
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _sealed(report: BankReport) -> dict[int, str]:
    """The sealed groups, in words, by their bits."""
    return _in_words(report.sealed)


def _shares(report: BankReport) -> dict[int, str]:
    """The groups with a share of the elements, in words, by their m."""
    return _in_words(report.shares)


def _in_words(by_group: Mapping[int, int]) -> dict[int, str]:
    found: dict[int, list[str]] = {}
    for group, value in by_group.items():
        found.setdefault(value, []).append(str(group))
    return {
        value: f"group{'s' if len(groups) > 1 else ''} {', '.join(groups)}"
        for value, groups in found.items()
    }


def _transform(report: BankReport) -> str:
    parts = f"shuffle {report.shuffle}, signs {report.signs}"
    if report.targets != "all" or report.every != 1:
        parts += f", targets {report.targets}, every {report.every}, rest {report.rest}"
    return f"{report.transform} ({parts}) · {report.bits} bits · seed {report.seed}"


def _groups(report: BankReport) -> list[tuple[str, str]]:
    """The line on groups, where there are several or one is sealed."""
    sealed = [
        f"{groups} sealed at {bits} bit" + ("s" if bits > 1 else "")
        for bits, groups in _sealed(report).items()
    ]
    shares = [f"{groups} on 1/{every} of the elements" for every, groups in _shares(report).items()]
    if report.groups == 1 and not (sealed or shares):
        return []
    return [("groups", "; ".join([str(report.groups), *sealed, *shares]))]


def _header(report: BankReport, width: int) -> list[Text]:
    count = len(report.tasks)
    where = {"embed": "inside", "reference": "outside the bank", "zero": "all zeros"}
    size = human(report.bank_bytes)
    name = shorten(report.bank, width - len(size) - 2)
    pairs = [
        (
            "base",
            f"{report.base_source} · {_count(report.base_tensors, 'tensor')} · "
            f"{human(report.base_bytes)}, {where.get(report.base_storage, report.base_storage)}",
        ),
        ("tasks", f"{count} · {human(report.separate_bytes)} as separate checkpoints"),
        ("transform", _transform(report)),
        *_groups(report),
        (
            "bytes",
            f"superposition {human(report.sum_bytes)}, own tensors {human(report.own_bytes)}",
        ),
        (
            "ratio",
            f"{times(report.ratio_to_base, 2)} the base, {times(report.ratio_to_separate, 3)} the "
            "separate checkpoints",
        ),
    ]
    if report.forgotten:
        pairs.append(("forgotten", f"{_count(report.forgotten, 'task')} remain as interference"))
    return [Text.assemble((name, "bold"), f"  {size}"), *_fields(pairs, width)]


def lost_lines(tasks: Sequence[TaskSummary]) -> list[str]:
    """What of which task does not come back, a line each."""
    return [f"{task.name}: {task.lost}" for task in tasks if task.lost]


def _verdict(report: BankReport, width: int) -> list[Text]:
    """One line that says what to expect."""
    cosines = [task.predicted_cosine for task in report.tasks]
    if not cosines:
        return [Text("no tasks")]
    worst = min(report.tasks, key=lambda task: task.predicted_cosine)
    mean = fmean(cosines)
    words = "good" if mean >= GOOD_FROM else "middling" if mean >= MIDDLING_FROM else "poor"
    text = f"predicted cosine {mean:.3f} on average ({words}), least {worst.predicted_cosine:.3f}"
    advice = "" if words == "good" else "; fewer tasks in a group would help"
    if len(report.tasks) == 1:
        text, advice = f"predicted cosine {mean:.3f}: one task meets no interference", ""
    elif len(text) + len(worst.name) + len(advice) + 6 <= width:
        text += f" ({worst.name})"
    told = lost_lines(report.tasks)
    more = [f"… and {len(told) - _MOST_LOST} more tasks"] if len(told) > _MOST_LOST else []
    return [
        Text(shorten(text + advice, width), quality_style(mean)),
        *(
            Text(part, "yellow")
            for line in (*told[:_MOST_LOST], *more)
            for part in wrap(line, width, subsequent_indent="  ")
        ),
    ]


def task_order(report: BankReport, sort: str | None, *, full: bool) -> list[int]:
    """The places of the tasks in the order asked for.

    Without one by index, or, where not all would be shown, those that suffer most first.
    """
    if sort is None:
        sort = "index" if full or len(report.tasks) <= _MOST_TASKS else "quality"
    keys: dict[str, Callable[[int], Any]] = {
        "index": lambda n: report.tasks[n].index,
        "quality": lambda n: report.tasks[n].predicted_cosine,
        "energy": lambda n: -report.details[n].norm,
        "size": lambda n: -report.details[n].own_bytes,
        "name": lambda n: report.tasks[n].name,
    }
    return sorted(range(len(report.tasks)), key=keys[sort])


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
    columns = [
        Column("task", name=True),
        Column("index", drop=4),
        Column("predicted cosine", drop=0),
        Column(""),
    ]
    if details:
        columns += [Column("rel. error", drop=2), Column("nearest", name=True, drop=3)]
    columns += [Column("λ", drop=1), Column("summed", drop=5)]
    optional = [("own", "own"), ("unchanged", "unchanged"), ("missing", "missing")]
    optional = [pair for pair in optional if any(getattr(task, pair[1]) for task in tasks)]
    columns += [Column(title, drop=6) for title, _ in optional]
    several = len({detail.group for detail in details}) > 1
    columns += [Column("group")] if several else []
    rows = []
    for place, task in enumerate(tasks if full else tasks[:_MOST_TASKS]):
        style = quality_style(task.predicted_cosine)
        row: list[str | Text] = [
            task.name,
            str(task.index),
            decimal(task.predicted_cosine, 3),
            bar(task.predicted_cosine, _BAR if width >= 90 else _BAR // 2, style),
        ]
        if details:
            detail = details[place]
            near = "" if detail.nearest is None else shorten(detail.nearest, 14)
            cosine = detail.nearest_cosine
            row += [
                f"{detail.predicted_error:.2f}",
                near if cosine is None else f"{cosine:5.2f} {near}",
            ]
        row += [f"{task.coefficient:g}", str(task.superposed)]
        row += [str(getattr(task, field)) for _, field in optional]
        row += [str(details[place].group)] if several else []
        rows.append(row)
    made = table(columns, rows, width)
    return made if full or len(tasks) <= _MOST_TASKS else [*made, more(len(tasks) - _MOST_TASKS)]


def _left_out(report: BankReport, width: int, *, full: bool) -> list[Text]:
    """The files of the tasks' folders that are not in the bank."""
    lines = [
        f"  {task.name}: {name} ({reason})"
        for task in report.tasks
        for name, reason in task.left_out.items()
    ]
    shown = lines if full else lines[:_MOST_ROWS]
    made = [Text("left out when it was packed", "bold")] if lines else []
    made += [Text(shorten(printable(line), width)) for line in shown]
    return made if len(shown) == len(lines) else [*made, more(len(lines) - len(shown))]


def _matrices(report: BankReport, width: int, *, full: bool) -> list[Text]:
    count = len(report.tasks)
    before, during = report.cosine_before, report.cosine_during
    pairs = [(abs(before[i][j]), i, j) for i in range(count) for j in range(i)]
    mean = [fmean(abs(m[i][j]) for _, i, j in pairs) for m in (before, during)]
    title = f"cosines between deltas: {mean[0]:.4f} → {mean[1]:.4f} in retrieval (mean magnitude)"
    made = [Text(shorten(title, width), "bold")]
    shown = list(range(count))
    if count > _MOST_MATRIX and not full:
        closest = dict.fromkeys(n for _, i, j in sorted(pairs, reverse=True) for n in (i, j))
        shown = sorted(list(closest)[:_MOST_MATRIX])
        text = f"the {_MOST_MATRIX} of {count} tasks that are most alike (--full shows all)"
        made.append(Text(shorten(text, width), "dim"))
    made += heatmaps(
        [report.tasks[n].name for n in shown],
        [report.tasks[n].index for n in shown],
        [[before[r][c] for c in shown] for r in shown],
        [[during[r][c] for c in shown] for r in shown],
        width,
    )
    if report.estimated:
        text = f"{_count(len(report.estimated), 'pair')} estimated: an original was not at hand"
        made.append(Text(shorten(text, width), "dim"))
    return made


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
    for row in found if full else found[:_MOST_ROWS]:
        style = quality_style(row.predicted_cosine)
        pair = ["-" if v is None else decimal(v, 3) for v in (row.before, row.during)]
        cells.append(
            [
                row.name,
                decimal(row.predicted_cosine, 3),
                bar(row.predicted_cosine, 8, style),
                f"{row.predicted_error:.2f}",
                f"{row.share:.1%}",
                *pair,
                f"{row.tensors:,}",
                f"{row.elements:,}",
            ]
        )
    order = {None: "most interference first", "quality": "most interference first"}
    by_words = order.get(sort, f"by {sort}" if sort else "")
    title = f"predicted by {'layer' if by == 'layer' else 'type'}, {by_words}"
    made = [Text(title, "bold"), *table(columns, cells, width)]
    return made if full or len(found) <= _MOST_ROWS else [*made, more(len(found) - _MOST_ROWS)]


def bank_view(
    report: BankReport, *, width: int, full: bool = False, sort: str | None = None
) -> list[Text]:
    """Everything that `inspect` shows, as lines of at most `width` cells (80 or more)."""
    order = task_order(report, sort, full=full)
    parts = [[*_header(report, width), *_verdict(report, width)]]
    if report.tasks:
        tasks = [report.tasks[n] for n in order]
        details = [report.details[n] for n in order]
        parts.append(task_lines(tasks, details, full=full, width=width))
    if any(task.left_out for task in report.tasks):
        parts.append(_left_out(report, width, full=full))
    if len(report.tasks) > 1:
        parts.append(_matrices(report, width, full=full))
    if report.rows:
        parts.append(group_lines(report.rows, report.by, sort, full=full, width=width))
    if report.tasks:
        parts.append(choice_table(report.alternatives, report.base_bytes, width))
    return [line for n, part in enumerate(parts) for line in ([Text()] if n else []) + part]


def _neighbours(report: BankReport, place: int, width: int, *, full: bool) -> list[Text]:
    before, during = report.cosine_before[place], report.cosine_during[place]
    others = [n for n in range(len(report.tasks)) if n != place]
    others.sort(key=lambda n: -abs(before[n]))
    rows = [
        [report.tasks[n].name, f"{before[n]:.4f}", f"{during[n]:.4f}"]
        for n in (others if full else others[:_MOST_ROWS])
    ]
    columns = [Column("other task", name=True), Column("cosine before"), Column("during retrieval")]
    made = table(columns, rows, width)
    return made if full or len(others) <= _MOST_ROWS else [*made, more(len(others) - _MOST_ROWS)]


def task_view(
    report: BankReport,
    name: str,
    rows: Sequence[GroupRow],
    *,
    width: int,
    full: bool = False,
    sort: str | None = None,
) -> list[Text]:
    """One task: where it comes from, how near it will come back, what disturbs it and where."""
    place = next(n for n, task in enumerate(report.tasks) if task.name == name)
    task, detail = report.tasks[place], report.details[place]
    style = quality_style(task.predicted_cosine)
    cosine = Text.assemble(
        (f"{'predicted':10}", "bold"),
        (f"cosine {task.predicted_cosine:.3f} ", style),
        bar(task.predicted_cosine, _BAR, style),
        f" relative error {detail.predicted_error:.2f} at λ = {task.coefficient:g}",
    )
    counts = [(task.superposed, "summed"), (task.own, "own"), (task.unchanged, "unchanged")]
    tensors = ", ".join(f"{number:,} {word}" for number, word in counts)
    pairs = [
        ("bank", printable(report.bank)),
        ("source", f"{detail.source} · {human(detail.checkpoint_bytes)}"),
        ("content", detail.fingerprint),
        ("seed", f"{task.seed} (index {task.index}, group {detail.group})"),
        ("tensors", f"{tensors}, {task.missing:,} missing · {human(detail.own_bytes)} of its own"),
    ]
    if detail.tuning:
        best = max(detail.tuning, key=lambda point: point[1])
        pairs.append(("tuning", f"score {best[1]:.4f} at λ = {best[0]:g}, of {len(detail.tuning)}"))
    if task.left_out:
        words = ", ".join(f"{name} ({reason})" for name, reason in task.left_out.items())
        pairs.append(("left out", printable(words)))
    made = [Text(task.name, "bold"), *_fields([(f"{n:8}", v) for n, v in pairs], width), cosine]
    if len(report.tasks) > 1:
        made += [Text(), *_neighbours(report, place, width, full=full)]
    if rows:
        made += [Text(), *group_lines(rows, report.by, sort, full=full, width=width)]
    return made
