"""Reports as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from randes_cli.cli.output import human

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport
    from randes_cli.ops.reports import EditReport, PackReport, TaskSummary
    from randes_cli.ops.verify import TaskCheck

_MOST_TASKS = 20
_MOST_ROWS = 12
_MATRIX = 8


def _bar(value: float, width: int = 10) -> Text:
    full = round(max(0.0, min(1.0, value)) * width)
    return Text("█" * full + "·" * (width - full), style=_colour(value))


def _colour(value: float) -> str:
    return "green" if value >= 0.5 else "yellow" if value >= 0.2 else "red"


def _task_table(tasks: tuple[TaskSummary, ...], *, full: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("task", "left"),
        ("index", "right"),
        ("seed", "right"),
        ("predicted cosine", "right"),
        ("", "left"),
        ("λ", "right"),
        ("superposed", "right"),
        ("own", "right"),
        ("unchanged", "right"),
        ("missing", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for task in tasks if full else tasks[:_MOST_TASKS]:
        table.add_row(
            Text(task.name, overflow="ellipsis", no_wrap=True),
            str(task.index),
            str(task.seed),
            f"{task.predicted_cosine:.3f}",
            _bar(task.predicted_cosine),
            f"{task.coefficient:g}",
            str(task.superposed),
            str(task.own),
            str(task.unchanged),
            str(task.missing),
        )
    if not full and len(tasks) > _MOST_TASKS:
        table.add_row(Text(f"… {len(tasks) - _MOST_TASKS} more (--full)", style="dim"))
    return table


def pack_notes(report: PackReport) -> list[str]:
    """What a person should know of how the inputs were taken, a line each."""
    made = list(report.notes)
    made += [f"{task.name}: {text}" for task in report.tasks for text in task.notes]
    made += [f"{refused.name} cannot be packed: {refused.reason}" for refused in report.refused]
    for name, tensors in report.kept_exactly.items():
        reasons: dict[str, list[str]] = {}
        for tensor, reason in tensors.items():
            reasons.setdefault(reason, []).append(tensor)
        made += [
            f"{name}: keeps {len(kept)} tensors exactly ({', '.join(kept[:2])}"
            f"{' …' if len(kept) > 2 else ''}): {reason}"
            for reason, kept in reasons.items()
        ]
    return made


def pack_table(report: PackReport) -> Table:
    """What was packed, or would be."""
    table = Table.grid(padding=(0, 1))
    verb = "would take" if report.dry_run else "takes"
    ratio = report.bank_bytes / max(1, report.base_bytes)
    table.add_row(
        Text.assemble(
            (report.bank, "bold"),
            f" {verb} {human(report.bank_bytes)}: {ratio:.2f} × the base, "
            f"{report.bank_bytes / max(1, report.separate_bytes):.2f} × the "
            f"{1 + len(report.tasks)} checkpoints",
        )
    )
    if report.dry_run:
        table.add_row(
            f"reads {human(report.read_bytes)}, needs {human(report.buffer_bytes)} of buffers"
        )
    table.add_row(_task_table(report.tasks, full=True))
    return table


def edit_table(report: EditReport) -> Table:
    """How an edit changes each task's predicted cosine."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task")
    for name in ("before", "after"):
        table.add_column(f"predicted cosine {name}", justify="right")
    before = {task.name: task.predicted_cosine for task in report.before}
    after = {task.name: task.predicted_cosine for task in report.after}
    for name in dict.fromkeys([*before, *after]):
        row = [f"{side[name]:.3f}" if name in side else "-" for side in (before, after)]
        table.add_row(Text(name, overflow="ellipsis", no_wrap=True), *row)
    return table


def check_table(check: TaskCheck) -> Table:
    """A task measured against its original."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=None)
    table.add_column(f"task {check.task}")
    for name in ("cosine", "predicted", "relative error"):
        table.add_column(name, justify="right")
    table.add_row("all", f"{check.cosine:.4f}", f"{check.predicted:.4f}", f"{check.error:.4f}")
    for tensor in check.tensors:
        table.add_row(
            Text(tensor.name, overflow="ellipsis", no_wrap=True),
            f"{tensor.cosine:.4f}",
            f"{tensor.predicted:.4f}",
            f"{tensor.error:.4f}",
        )
    return table


def _header(report: BankReport) -> Table:
    grid = Table.grid(padding=(0, 2))
    parts = f"shuffle {report.shuffle}, signs {report.signs}"
    if report.targets != "all" or report.every != 1:
        parts += f", targets {report.targets}, every {report.every}, rest {report.rest}"
    rows = [
        ("bank", f"{report.bank}  {human(report.bank_bytes)}"),
        (
            "ratio",
            f"{report.ratio_to_base:.2f} × the base, {report.ratio_to_separate:.3f} × "
            f"{len(report.tasks)} separate checkpoints ({human(report.separate_bytes)})",
        ),
        (
            "bytes",
            f"base {human(report.base_bytes)} ({report.base_storage}), superposition "
            f"{human(report.sum_bytes)}, own {human(report.own_bytes)}",
        ),
        ("transform", f"{report.transform} ({parts}), {report.bits} bits, seed {report.seed}"),
        ("base", f"{report.base_source}, {report.base_tensors} tensors"),
    ]
    if report.forgotten:
        rows.append(("forgotten", f"{report.forgotten} tasks remain as interference"))
    for name, value in rows:
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def _matrix_table(report: BankReport, title: str, values: tuple[tuple[float, ...], ...]) -> Table:
    count = min(_MATRIX, len(report.tasks))
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for task in report.tasks[:count]:
        table.add_column(task.name[:8], justify="right", no_wrap=True)
    for row in range(count):
        cells = [f"{values[row][column]:.4f}" for column in range(count)]
        table.add_row(report.tasks[row].name[:12], *cells)
    return table


def _rows_table(report: BankReport, *, full: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensors of", overflow="fold")
    for name in ("tensors", "elements", "energy", "cosine", "before", "during"):
        table.add_column(name, justify="right")
    rows = sorted(report.rows, key=lambda row: -row.share)
    for row in rows if full else rows[:_MOST_ROWS]:
        pair = ["-" if v is None else f"{v:.4f}" for v in (row.before, row.during)]
        table.add_row(
            Text(row.name),
            str(row.tensors),
            f"{row.elements:,}",
            f"{row.share:.1%}",
            f"{row.predicted_cosine:.3f}",
            *pair,
        )
    if not full and len(rows) > _MOST_ROWS:
        table.add_row(Text(f"… {len(rows) - _MOST_ROWS} more (--full)", style="dim"))
    return table


def bank_view(report: BankReport, *, full: bool) -> list[RenderableType]:
    """Everything that `inspect` shows, part by part."""
    parts: list[RenderableType] = [_header(report), Text(), _task_table(report.tasks, full=full)]
    if len(report.tasks) > 1:
        parts += [
            Text(),
            _matrix_table(report, "cosines of the deltas", report.cosine_before),
            Text(),
            _matrix_table(report, "cosines as they meet in retrieval", report.cosine_during),
        ]
    if report.estimated:
        parts.append(Text(f"{len(report.estimated)} pairs are estimated", style="dim"))
    if report.rows:
        parts += [Text(), _rows_table(report, full=full)]
    return parts
