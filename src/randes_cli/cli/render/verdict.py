"""What to expect of a bank's tasks, in words, before any table of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.render.layout import GOOD, POOR, in_lines, verdict_style
from randes_cli.core.prediction.verdict import (
    MOST,
    WHY,
    approximate,
    by_word,
    expectation,
    is_long,
    percent,
    share,
)
from randes_cli.errors import counted

if TYPE_CHECKING:
    from randes_cli.reports import Alternative, TaskSummary

#: Tasks of which it is said that they do not come back.
_MOST_LOST = 10


def lost_lines(tasks: Sequence[TaskSummary]) -> list[str]:
    """What of which task does not come back, a line each."""
    return [f"{task.name}: {task.lost}" for task in tasks if task.lost]


def warning_lines(tasks: Sequence[TaskSummary]) -> list[str]:
    """What does not come back, and which predictions are approximate."""
    return [*lost_lines(tasks), *approximate(tasks)]


def verdict_lines(
    tasks: Sequence[TaskSummary], alternatives: Sequence[Alternative], width: int
) -> list[Text]:
    """What to expect of these tasks, and from which prediction.

    Of the bank as a whole `alternatives` has the figures, so that a screen has one of each.
    """
    if not tasks:
        return [Text("no tasks")]
    here = next((one for one in alternatives if one.present), None)
    dim = [Text(part, "dim") for part in in_lines(_prediction(tasks, here), width, "  ")]
    return expected_lines(tasks, width) + dim


def expected_lines(tasks: Sequence[TaskSummary], width: int) -> list[Text]:
    """What to expect of these tasks, to be read on dark and on light grounds."""
    return [
        Text(part, "bold" if verdict_style(verdict) == GOOD else f"bold {POOR}")
        for verdict, sentence in expectation(tasks)
        for part in in_lines(sentence, width, "  ")
    ]


def told_lost(tasks: Sequence[TaskSummary], width: int) -> list[Text]:
    """The first of `warning_lines`, none wider than there is room."""
    told = lost_lines(tasks)
    more = (
        [f"… and {counted(len(told) - _MOST_LOST, 'more task')}"] if len(told) > _MOST_LOST else []
    )
    lines = (*told[:_MOST_LOST], *more, *approximate(tasks))
    return [Text(part, POOR) for line in lines for part in in_lines(line, width, "  ")]


def _prediction(tasks: Sequence[TaskSummary], here: Alternative | None) -> str:
    """The cosines that the words are made from, and where that is explained."""
    cosines = [task.predicted_cosine for task in tasks]
    if len(tasks) == 1:
        text = f"predicted cosine {cosines[0]:.3f}"
    else:
        worst = min(tasks, key=lambda task: task.predicted_cosine)
        text = f"predicted cosine {fsum(cosines) / len(cosines):.3f} on average, least "
        text += f"{worst.predicted_cosine:.3f} ({worst.name})"
    text = f"{_gain(tasks, here)}{text}"
    worse = any(by_word(task.verdict).least < MOST.least for task in tasks)
    advice = "; more groups, or fewer tasks in each, would help" if worse else ""
    return f"{text}{advice}; why: {WHY}"


def _gain(tasks: Sequence[TaskSummary], here: Alternative | None) -> str:
    """What is predicted to be kept of what fine-tuning gained, where that can be told."""
    found = [(t.kept, t.kept_low, t.kept_high) for t in tasks]
    if any(None in one for one in found):
        return ""
    mean, low, high = (fsum(one[n] or 0.0 for one in found) / len(found) for n in range(3))
    if here is not None:
        mean, low, high = here.kept, here.kept_low, here.kept_high
    families = f"{share((low, high))} in measured families"
    if "–" in families and any(map(is_long, tasks)):
        families += ", the least where deltas are long"
    return f"predicted to keep {percent(mean)} of the gain ({families}); "
