"""Reports as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from randes_cli.cli.render.layout import Column, shorten, table
from randes_cli.core.prediction.verdict import kept
from randes_cli.errors import counted, printable
from randes_cli.views.text import decimal

#: Names that a list shows.
_MOST_NAMES = 20

if TYPE_CHECKING:
    from randes_cli.ops.compare import TypeDiff
    from randes_cli.ops.diff import BankDiff, CheckpointDiff
    from randes_cli.ops.measure import TaskCheck
    from randes_cli.ops.spectra import TaskInterference
    from randes_cli.reports import EditReport, SealReport


def edit_table(report: EditReport | SealReport, width: int) -> list[Text]:
    """How an edit or a sealing changes each task's predicted cosine."""
    before = {task.name: task.predicted_cosine for task in report.before}
    after = {task.name: task.predicted_cosine for task in report.after}
    keeps = {task.name: kept(task) for task in report.after}
    rows = [
        [
            name,
            *(decimal(side[name], 3) if name in side else "-" for side in (before, after)),
            keeps.get(name, "-"),
        ]
        for name in dict.fromkeys([*before, *after])
    ]
    columns = [Column("task", name=True)]
    columns += [Column("predicted cosine"), Column("after"), Column("keeps")]
    return table(columns, rows, width)


def check_table(check: TaskCheck, width: int) -> list[Text]:
    """A task measured against its original; of many tensors those that come back worst."""
    left, shown = len(check.tensors) - _MOST_NAMES, check.tensors
    if left > 0:
        shown = tuple(sorted(shown, key=lambda one: one.cosine)[:_MOST_NAMES])
    rows = [
        [one.name, f"{one.cosine:.4f}", f"{one.predicted:.4f}", f"{one.error:.4f}"] for one in shown
    ]
    rows.insert(0, ["all", f"{check.cosine:.4f}", f"{check.predicted:.4f}", f"{check.error:.4f}"])
    columns = [Column(f"task {check.task}", name=True)]
    columns += [Column(title) for title in ("cosine", "predicted", "rel. error")]
    made = table(columns, rows, width)
    words = f"… {left:,} more, which come back better (--json lists all)"
    return [*made, Text(words, "dim")] if left > 0 else made


def interference_table(found: TaskInterference, width: int) -> list[Text]:
    """One task's true retrieval beside the prediction; σ is against a random matrix's end."""
    columns = [
        Column(f"task {found.task}, λ = 1", name=True),
        Column("cosine"),
        Column("predicted"),
        Column("rel. error"),
        Column("predicted", drop=1),
        Column("largest σ", drop=3),
        Column("random bound", drop=3),
        Column("σ / bound"),
        Column("tensors", drop=2),
    ]
    rows = []
    ordered = sorted(found.rows, key=lambda row: (row.cosine, row.name))
    for row in (found.whole, *ordered):
        spectrum = ["-", "-", "-"]
        if row.largest is not None and row.bound is not None:
            spectrum = [f"{row.largest:.3g}", f"{row.bound:.3g}", f"{row.largest / row.bound:.2f}"]
        rows.append(
            [
                row.name,
                f"{row.cosine:.4f}",
                f"{row.predicted_cosine:.4f}",
                f"{row.error:.3f}",
                f"{row.predicted_error:.3f}",
                *spectrum,
                str(row.tensors),
            ]
        )
    return table(columns, rows, width)


def _pairs(title: str, pairs: Mapping[str, tuple[Any, Any]], width: int) -> list[Text]:
    columns = [Column(title, name=True), Column("A", name=True), Column("B", name=True)]
    rows = [[name, _word(a), _word(b)] for name, (a, b) in pairs.items()]
    shown = table(columns, rows[:_MOST_NAMES], width)
    return [Text(), *shown, *_left_over(len(rows))] if rows else []


def _left_over(count: int) -> list[Text]:
    """What follows the first of so many rows."""
    left = count - _MOST_NAMES
    return [Text(f"… {left:,} more (--json lists all)", "dim")] if left > 0 else []


def _word(value: Any) -> str:
    if isinstance(value, dict):  # of groups
        return ", ".join(f"{number} in group {group}" for group, number in value.items()) or "-"
    if value is None:
        return "-"
    return "×".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


def _listed(title: str, names: Sequence[str], width: int) -> list[Text]:
    shown = [Text("  " + shorten(name, width - 2)) for name in names[:_MOST_NAMES]]
    if len(names) > _MOST_NAMES:
        shown.append(Text(f"  … {len(names) - _MOST_NAMES:,} more (--json lists all)", "dim"))
    return [Text(), Text(f"{title} ({len(names):,})", "bold"), *shown] if names else []


def _type_lines(types: Sequence[TypeDiff], width: int, *, deltas: bool) -> list[Text]:
    """How tensors of each type differ between two sides."""
    columns = [
        Column("type of tensor", name=True),
        Column("tensors", drop=1),
        Column("changed"),
        Column(f"cosine of {'deltas' if deltas else 'values'}"),
        Column("‖A − B‖"),
        Column("‖A − B‖ / ‖A − base‖" if deltas else "‖A − B‖ / ‖A‖"),
    ]
    rows = [
        [
            one.name,
            f"{one.tensors:,}",
            f"{one.changed:,}",
            "not finite" if one.cosine is None else f"{one.cosine:.6f}",
            "-" if one.norm is None else f"{one.norm:#.4g}",
            "-" if one.relative is None else f"{one.relative:#.4g}",
        ]
        for one in types[:_MOST_NAMES]
    ]
    made = [Text(), *table(columns, rows, width)] if rows else []
    return [*made, *_left_over(len(types))]


def bank_diff_view(found: BankDiff, width: int) -> list[Text]:
    made = [Text(shorten(f"A {found.a}", width)), Text(shorten(f"B {found.b}", width))]
    made += _pairs("setting", found.settings, width)
    made += _listed("tasks only in A", found.removed, width)
    made += _listed("tasks only in B", found.added, width)
    changes = {
        f"{task}: {field}": pair
        for task, fields in found.changed.items()
        for field, pair in fields.items()
    }
    made += _pairs("task that differs", changes, width)
    for task, types in found.types.items():
        made += [Text(), Text(shorten(f"{task}, as retrieved from A", width), "bold")]
        made += _type_lines(types, width, deltas=True)
    made += _listed("tensors that differ", found.tensors, width)
    words = f"alike: {counted(len(found.kept), 'task')}"
    return [*made, Text(), Text(f"{words}{_in_room(found.kept, width - len(words) - 3)}")]


def _in_room(names: Sequence[str], room: int) -> str:
    """As many names, in brackets, as there is room for."""
    shown = list(map(printable, names))
    while shown and len(", ".join(shown)) + (4 if len(shown) < len(names) else 0) > room:
        shown.pop()
    return f" ({', '.join(shown)}{', …' if len(shown) < len(names) else ''})" if shown else ""


def checkpoint_diff_view(found: CheckpointDiff, width: int) -> list[Text]:
    made = [Text(shorten(f"A {found.a}", width)), Text(shorten(f"B {found.b}", width))]
    made += _listed("tensors only in A", found.removed, width)
    made += _listed("tensors only in B", found.added, width)
    made += _pairs("other shape", found.reshaped, width)
    made += _pairs("other dtype", found.retyped, width)
    return made + _type_lines(found.types, width, deltas=bool(found.base))
