"""What `pack` says: of the inputs a line each, of the bank a summary."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from randes_cli.cli.render.layout import shorten
from randes_cli.cli.render.rows import choice_table, task_lines, worst_first
from randes_cli.cli.render.verdict import verdict_lines, warning_lines
from randes_cli.cli.talk import Talk
from randes_cli.core.prediction.verdict import sentences
from randes_cli.errors import counted, first_of, some_of
from randes_cli.reports import EditReport, PackReport
from randes_cli.stats.room import room_words
from randes_cli.views.text import human

#: Lines of what was found in the inputs, and the tasks that one of them names.
_MOST_NOTES, _MOST_NAMES = 12, 3


def tell(talk: Talk, report: PackReport, *, full: bool) -> None:
    """All that `pack` says when it is done."""
    talk.tell(
        report,
        lambda width: pack_table(report, width, full=full),
        read=report.read_bytes,
        written=report.bank_bytes,
        before=pack_notes(report, full=full),
        after=[text for text in (*report.unsuited, report.advice, report.saving) if text],
        expect=sentences(report.tasks),
    )


def pack_notes(report: PackReport, *, full: bool = True) -> list[str]:
    """What a person should know of how the inputs were taken, a line each.

    What is said of several tasks is said once. Without `full` the first of many lines.
    """
    made = [*report.notes, *task_notes(report), *warning_lines(report.tasks)]
    made += [f"{refused.name} cannot be packed: {refused.reason}" for refused in report.refused]
    if full or len(made) <= _MOST_NOTES:
        return made
    left = counted(len(made) - _MOST_NOTES, "more note")
    return [*made[:_MOST_NOTES], f"… {left} (--full)"]


def task_notes(report: PackReport | EditReport) -> list[str]:
    """How the tasks that came were taken; what is said of several is said once."""
    tasks = report.tasks if isinstance(report, PackReport) else report.after
    told = [(task.name, text) for task in tasks for text in task.notes]
    told += [
        (name, text) for name, kept in report.kept_exactly.items() for text in _kept_exactly(kept)
    ]
    return joined(told)


def joined(told: Iterable[tuple[str, str]]) -> list[str]:
    """Lines ``TASKS: what is said``, from pairs of task and text."""
    names: dict[str, list[str]] = {}
    for name, text in told:
        names.setdefault(text, []).append(name)
    return [f"{some_of(of, _MOST_NAMES)}: {text}" for text, of in names.items()]


def _kept_exactly(tensors: dict[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for tensor, reason in tensors.items():
        reasons.setdefault(reason, []).append(tensor)
    return [
        f"keeps {counted(len(kept), 'tensor')} exactly ({first_of(kept, 2)}): {reason}"
        for reason, kept in reasons.items()
    ]


def pack_table(report: PackReport, width: int, *, full: bool = True) -> list[Text]:
    """What was packed, or would be."""
    verb = "would take" if report.dry_run else "takes"
    ratio = f"{report.bank_bytes / max(1, report.base_bytes):.2f} × the base, "
    if report.adapters == "kept":
        ratio = ""  # their base is zeros in the shapes of factors
    count = len(report.tasks)
    rest = (
        f" {verb} {human(report.bank_bytes)}: {ratio}"
        f"{report.bank_bytes / max(1, report.separate_bytes):.2f} × the "
        f"{f'{count} checkpoints' if count > 1 else 'checkpoint'}"
    )
    made = adapter_line(report, count)
    made += [Text.assemble((shorten(report.bank, max(20, width - len(rest))), "bold"), rest)]
    if report.dry_run:
        download = f"downloads {human(report.download_bytes)}, " if report.download_bytes else ""
        made.append(
            Text(
                f"{download}reads {human(report.read_bytes)}, writes {human(report.bank_bytes)}, "
                f"needs {human(report.buffer_bytes)} of buffers"
            )
        )
    made += room_line(report)
    made += verdict_lines(report.tasks, report.alternatives, width)
    tasks = worst_first(report.tasks, full=full)
    made += [Text(), *task_lines(tasks, (), full=full, width=width)]
    if report.alternatives:
        made += [Text(), *choice_table(report.alternatives, report.base_bytes, report.tasks, width)]
    return made


def room_line(report: PackReport | EditReport) -> list[Text]:
    """How many more tasks 8-bit superpositions have room for, where there are any."""
    if report.room is None:
        return []
    return [Text(f"superpositions of 8 bits have room for {room_words(report.room)}")]


def adapter_line(report: PackReport | EditReport, coming: int) -> list[Text]:
    """What became of adapters among the `coming` tasks, before all else."""
    if report.adapters == "kept":
        return [
            Text("LoRA adapters, kept as adapters: their factors come back, for their own base")
        ]
    if report.adapters != "merged":
        return []
    who = f"{report.merged} of {coming} tasks are adapters, "
    if report.merged == coming:
        who = "adapters, "
    how = " (--adapters keeps those that are LoRA)" if isinstance(report, PackReport) else ""
    return [Text(f"{who}merged into the base: full models come back{how}")]
