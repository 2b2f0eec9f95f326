"""The first screen of the page: what is in a bank, how good each model is, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from randes_cli.core.prediction.verdict import (
    ALL,
    MOST,
    NEARLY_ALL,
    by_word,
    kept,
    percent,
    sentences,
)
from randes_cli.errors import printable, shell_word
from randes_cli.files.hub.ref import is_bank_there
from randes_cli.ops.describe import BankReport
from randes_cli.reports import TaskSummary
from randes_cli.stats.alternatives import sealing
from randes_cli.stats.curves import Curves
from randes_cli.views.text import human, times

#: Tasks that the first screen names: all of a small bank, of a larger one the worst.
MOST_NAMED = 8
_FINE = (ALL, NEARLY_ALL, MOST)


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """What to expect of one task, in words, and whether they are good, middling or poor."""

    name: str
    says: str
    tone: str


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, and the command for it."""

    words: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the first screen says."""

    what: str
    good: str
    tasks: Sequence[TaskAnswer]
    more: str
    steps: Sequence[Step]


def _task(task: TaskSummary) -> TaskAnswer:
    if task.lost:
        return TaskAnswer(printable(task.name), "does not come back", "poor")
    verdict = by_word(task.verdict)
    tone = "good" if verdict in _FINE[:2] else "fair" if verdict in _FINE else "poor"
    says = f"keeps {verdict.word}" + (f" ({kept(task)})" if task.expected else "")
    return TaskAnswer(printable(task.name), says, tone)


def _what(report: BankReport) -> str:
    count = len(report.tasks)
    models = "No models are left" if not count else "One model" if count == 1 else f"{count} models"
    size = human(report.bank_bytes)
    if report.ratio_to_base is not None:
        size += f": {times(report.ratio_to_base, 2)} the base"
    apart = f", in place of {human(report.separate_bytes)} of checkpoints" if count else ""
    return f"{models} of {printable(report.base_name)} in {size}{apart}."


def _steps(report: BankReport, curves: Curves) -> list[Step]:
    place = report.bank if is_bank_there(report.bank) else PurePath(report.bank).name
    bank = shell_word(printable(place))
    if not report.tasks:
        return [Step("Add a model:", f"randes add {bank} NAME=CHECKPOINT")]
    worst = min(report.tasks, key=lambda task: (not task.lost, task.predicted_cosine))
    name = shell_word(printable(worst.name))
    lost = [f"{one.name}: {one.lost}" for one in report.tasks if one.lost]
    steps = [Step(printable(words)) for words in (*lost, *report.unsuited)]
    poor = [one for one in report.tasks if by_word(one.verdict) not in _FINE]
    if poor and not curves.measured:
        command = f"randes evaluate {bank} --evaluate 'python eval.py {{checkpoint}}'"
        steps.append(Step("Measure before you rely on it:", command))
    here = next((one.kept for one in report.alternatives if one.present), 1.0)
    if poor and any(one.kept > here for one in report.alternatives):
        steps.append(Step("Other bits and groups bring more back: see Choices below."))
    found = sealing(report.alternatives) if report.saving else None
    if found is not None:
        was, best = found
        words = (
            f"Save {human(was.bank_bytes - best.bank_bytes)}, by a copy that is read-only: "
            f"{human(best.bank_bytes)}, predicted to keep {percent(best.kept)} of the gain, not "
            f"{percent(was.kept)}:"
        )
        steps.append(Step(words, printable(found.command(place))))
    return [*steps[:4], Step("Take a model out:", f"randes unpack {bank} {name} -o {name}")]


def answer(report: BankReport, curves: Curves) -> Answer:
    """What is in a bank, how good each model is, what to do."""
    order = sorted(report.tasks, key=lambda task: (not task.lost, task.predicted_cosine))
    named = order[:MOST_NAMED]
    left = len(order) - len(named)
    told = sentences(report.tasks)
    return Answer(
        what=_what(report),
        good=" ".join(f"{one[0].upper()}{one[1:]}." for one in told) or "There is none left.",
        tasks=[_task(task) for task in named],
        more=f"The other {left:,} come back as well as these or better." if left else "",
        steps=_steps(report, curves),
    )
