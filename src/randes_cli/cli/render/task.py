"""What `inspect --task` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.render.layout import Column, bar, fields, more, table, verdict_style
from randes_cli.cli.render.rows import BAR, MOST_ROWS, group_lines
from randes_cli.cli.render.verdict import expected_lines, told_lost
from randes_cli.core.verdict import by_word
from randes_cli.errors import printable
from randes_cli.views.text import human

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport
    from randes_cli.stats.breakdown import GroupRow


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
        (f"cosine {task.predicted_cosine:.3f} ", style),
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
        best = max(detail.tuning, key=lambda point: point[1])
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
