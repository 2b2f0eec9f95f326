"""What `inspect` shows of a bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.render.heat import heatmaps
from randes_cli.cli.render.layout import (
    Column,
    bar,
    fields,
    in_lines,
    more,
    shorten,
    table,
    verdict_style,
)
from randes_cli.cli.render.packed import joined
from randes_cli.cli.render.rows import (
    BAR,
    MOST_ROWS,
    choice_table,
    group_lines,
    task_lines,
    task_order,
)
from randes_cli.cli.render.verdict import expected_lines, told_lost, verdict_lines
from randes_cli.core.prediction.verdict import by_word
from randes_cli.errors import counted, printable
from randes_cli.stats.room import room_words
from randes_cli.views.text import PLACES, human, times

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport
    from randes_cli.stats.breakdown import GroupRow


_MOST_MATRIX = 12


def _in_words(by_group: Mapping[int, int]) -> dict[int, str]:
    """Groups in words, by their bits or the part of the elements that they have."""
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
    live = f" · {report.bits} bits" if len(report.sealed) < report.groups else ""
    return f"{report.transform} ({parts}){live} · seed {report.seed}"


def _groups(report: BankReport) -> list[tuple[str, str]]:
    """The line on groups, where there are several or one is sealed."""
    cut, parts = _in_words(report.sealed), _in_words(report.shares)
    sealed = [f"{groups} sealed at {counted(bits, 'bit')}" for bits, groups in cut.items()]
    shares = [f"{groups} on 1/{every} of the elements" for every, groups in parts.items()]
    if report.groups == 1 and not (sealed or shares):
        return []
    return [("groups", "; ".join([str(report.groups), *sealed, *shares]))]


def _header(report: BankReport, width: int) -> list[Text]:
    count = len(report.tasks)
    size, ratio = human(report.bank_bytes), report.ratio_to_base
    beside = "" if ratio is None else f"{times(ratio, 2)} the base, "
    name = shorten(report.bank, width - len(size) - 2)
    pairs = [
        (
            "base",
            f"{report.base_name} · {counted(report.base_tensors, 'tensor')} · "
            f"{human(report.base_bytes)}, {PLACES[report.base_storage]}",
        ),
        ("tasks", f"{count} · {human(report.separate_bytes)} as separate checkpoints"),
        ("transform", _transform(report)),
        *_groups(report),
        *([] if report.room is None else [("room", f"for {room_words(report.room)}")]),
        (
            "bytes",
            f"superposition {human(report.sum_bytes)}, own tensors {human(report.own_bytes)}",
        ),
        (
            "ratio",
            f"{beside}{times(report.ratio_to_separate, 3)} the separate checkpoints",
        ),
    ]
    if report.forgotten:
        pairs.append(("forgotten", f"{counted(report.forgotten, 'task')} left as interference"))
    return [Text.assemble((name, "bold"), f"  {size}"), *fields(pairs, width)]


def _left_out(report: BankReport, width: int, *, full: bool) -> list[Text]:
    lines = joined(
        (task.name, f"{name} ({reason})")
        for task in report.tasks
        for name, reason in task.left_out.items()
    )
    shown = lines if full else lines[:MOST_ROWS]
    made = [Text("left out when it was packed", "bold")] if lines else []
    made += [Text(shorten(f"  {line}", width)) for line in shown]
    return made if len(shown) == len(lines) else [*made, more(len(lines) - len(shown))]


def _matrices(report: BankReport, width: int, *, full: bool) -> list[Text]:
    count = len(report.tasks)
    before, during = report.cosine_before, report.cosine_during
    pairs = [(abs(before[i][j]), i, j) for i in range(count) for j in range(i)]
    mean = [fsum(abs(m[i][j]) for _, i, j in pairs) / len(pairs) for m in (before, during)]
    title = f"cosines between deltas: {mean[0]:.4f} → {mean[1]:.4f} in retrieval (mean magnitude)"
    made = [Text(part, "bold") for part in in_lines(title, width)]
    shown = list(range(count))
    if count > _MOST_MATRIX and not full:
        closest = dict.fromkeys(n for _, i, j in sorted(pairs, reverse=True) for n in (i, j))
        shown = sorted(list(closest)[:_MOST_MATRIX])
        text = f"the {_MOST_MATRIX} of {count} tasks that are most alike (--full shows all)"
        made += [Text(part, "dim") for part in in_lines(text, width)]
    made += heatmaps(
        [report.tasks[n].name for n in shown],
        [report.tasks[n].index for n in shown],
        [[before[r][c] for c in shown] for r in shown],
        [[during[r][c] for c in shown] for r in shown],
        width,
    )
    if report.estimated:
        text = f"{counted(len(report.estimated), 'pair')} estimated: an original was not at hand"
        made += [Text(part, "dim") for part in in_lines(text, width)]
    return made


def bank_view(
    report: BankReport, *, width: int, full: bool = False, sort: str | None = None
) -> list[Text]:
    """Everything that `inspect` shows, as lines of at most `width` cells (80 or more)."""
    order = task_order(report, sort, full=full)
    parts = [
        [
            *_header(report, width),
            *verdict_lines(report.tasks, report.alternatives, width),
            *told_lost(report.tasks, width),
        ]
    ]
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
    if report.tasks and report.alternatives:
        parts.append(choice_table(report.alternatives, report.base_bytes, report.tasks, width))
    return [line for n, part in enumerate(parts) for line in ([Text()] if n else []) + part]


def _neighbours(report: BankReport, place: int, width: int, *, full: bool) -> list[Text]:
    before, during = report.cosine_before[place], report.cosine_during[place]
    others = [n for n in range(len(report.tasks)) if n != place]
    others.sort(key=lambda n: -abs(before[n]))
    rows = [
        [report.tasks[n].name, f"{before[n]:.4f}", f"{during[n]:.4f}"]
        for n in (others if full else others[:MOST_ROWS])
    ]
    columns = [Column("other task", name=True), Column("cosine before"), Column("during retrieval")]
    made = table(columns, rows, width)
    return made if full or len(others) <= MOST_ROWS else [*made, more(len(others) - MOST_ROWS)]


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
    style = verdict_style(by_word(task.verdict))
    cosine = Text.assemble(
        (f"{'predicted':10}", "bold"),
        f"cosine {task.predicted_cosine:.3f} ",
        bar(task.predicted_cosine, BAR, style),
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
        best = max(detail.tuning, key=lambda point: (point[1], -abs(point[0] - 1)))  # as tune
        pairs.append(("tuning", f"score {best[1]:.4f} at λ = {best[0]:g}, of {len(detail.tuning)}"))
    if task.left_out:
        words = ", ".join(f"{name} ({reason})" for name, reason in task.left_out.items())
        pairs.append(("left out", printable(words)))
    made = [Text(task.name, "bold"), *fields([(f"{n:8}", v) for n, v in pairs], width), cosine]
    made += [*expected_lines([task], width), *told_lost([task], width)]
    if len(report.tasks) > 1:
        made += [Text(), *_neighbours(report, place, width, full=full)]
    if rows:
        made += [Text(), *group_lines(rows, report.by, sort, full=full, width=width)]
    return made
