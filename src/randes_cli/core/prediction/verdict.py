"""What a user may expect of a task: the share of its accuracy that measured models kept.

The words and thresholds of every place that judges a prediction: terminal, report, card, pictures
and ``--json``. A cosine alone says little to a person; models of docs/results.md that came back at
a like cosine, and what they kept of their fine-tuned selves' accuracy, say more.

Noise of other tasks (interference) and of few bits (rounding) make the same cosine and do not
weigh the same: a delta of its own at 1 bit has 0.80, and lost as much as interference at 0.55. The
bands are cut so that the ranges hold for both.

The same noise hurts a model more the longer its delta is beside its base: deltas up to a sixth of
their base's length were measured as near, from a quarter to three eighths as far (a decoder). Of
longer ones nothing was; small decoders that recite, at 0.46, came back as gibberish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from randes_cli.errors import some_of
from randes_cli.reports import TaskSummary

#: Where the reasons are.
WHY = "docs/method.md, What to expect"
#: From here on a task counts as alone, whatever the transform.
_ALONE = 0.999
#: Names that a line lists.
_MOST_NAMES = 3
#: Lengths beside the base up to which deltas are near, and up to which any were measured.
NEAR, FAR = 0.2, 0.4


class Verdict(NamedTuple):
    """A band of noise, and what it did to measured models.

    Attributes:
        word: how much of its accuracy a task keeps.
        least: predicted cosine from which it is given.
        kept: shares of the accuracy of the fine-tuned models that measured ones kept, from the
            least to the most; None where none was measured.
        far: the same of models whose deltas are long beside their base.
    """

    word: str
    least: float
    kept: tuple[float, float] | None = None
    far: tuple[float, float] | None = None

    def range(self, length: float | None) -> tuple[float, float] | None:
        """The shares that models kept whose deltas are as long; of near ones where it is None."""
        return self.kept if length is None or length <= NEAR else self.far


ALL = Verdict("all", 0.9, (0.99, 1.0), (0.99, 1.0))
NEARLY_ALL = Verdict("nearly all", 0.6, (0.98, 1.0), (0.93, 0.98))
MOST = Verdict("most", 0.3, (0.96, 1.0), (0.77, 0.91))
MUCH = Verdict("much", 0.15, (0.91, 1.0))
PART = Verdict("part", 0.08, (0.83, 0.99))
UNKNOWN = Verdict("an unknown share", -1.0)
#: Of deltas longer than any that were measured.
FAR_OUT = Verdict("an unmeasured share", -1.0)
LOST = Verdict("nothing", -1.0)

#: The best first.
BANDS = (ALL, NEARLY_ALL, MOST, MUCH, PART, UNKNOWN)
_ORDER = (*BANDS, FAR_OUT, LOST)


def judge(
    cosine: float,
    length: float | None = None,
    *,
    decorrelates: bool = True,
    factors: bool = False,
) -> Verdict:
    """The verdict of a predicted cosine.

    `length`: the delta's beside its base's, where it is known. `decorrelates`: whether the
    transform flips every element by itself or by row and column; what others leave of a cosine was
    measured to say nothing of accuracy. `factors`: whether factors of low rank were superposed, of
    which no models were measured either: noise in both does more than in one merged delta.
    """
    if cosine >= _ALONE:
        return ALL
    if factors or not decorrelates:
        return UNKNOWN
    found = next((one for one in BANDS if cosine >= one.least), UNKNOWN)
    if found is UNKNOWN or length is None or length <= NEAR:
        return found
    return FAR_OUT if length > FAR or found.far is None else found


#: Said of shares of the gain, which are of measured models, where deltas are longer than theirs.
BEYOND = "no model with so long a delta was measured: these shares rank banks, and promise nothing"


def unmeasured(tasks: Sequence[TaskSummary]) -> bool:
    """Whether a task's delta is longer than any of a measured model."""
    return any(task.verdict == FAR_OUT.word for task in tasks)


def hedged(sentence: str | None, tasks: Sequence[TaskSummary]) -> str | None:
    """A sentence that tells what is kept, with what is to be known where nobody measured that."""
    if sentence is None or not unmeasured(tasks):
        return sentence
    return f"{sentence}; but no model with so long a delta was measured"


def percent(value: float, digits: int = 1) -> str:
    """A share in words: ``96.2 %``."""
    return f"{100 * value:.{digits}f} %"


def share(pair: tuple[float, float] | None, digits: int = 0) -> str:
    """A range of shares in words: ``96–100 %``."""
    if pair is None:
        return "not measured"
    low, high = (f"{100 * value:.{digits}f}" for value in pair)
    return f"{high} %" if low == high else f"{low}–{high} %"


def kept(task: TaskSummary) -> str:
    """How much of its accuracy a task may keep, in a table's cell."""
    return share(task.expected) if task.expected else task.verdict


def by_word(word: str) -> Verdict:
    """The verdict that a task was given."""
    return next(one for one in _ORDER if one.word == word)


def expectation(tasks: Sequence[TaskSummary]) -> list[tuple[Verdict, str]]:
    """What to expect of a bank's tasks: a sentence for each verdict, the best first.

    Those with long deltas have sentences of their own.
    """
    made = []
    for verdict in _ORDER:
        for known, long in ((False, False), (True, False), (True, True)):
            found = [
                task
                for task in tasks
                if task.verdict == verdict.word and _told(task, verdict) == (known, long)
            ]
            if found:
                made.append((verdict, _sentence(verdict, found, len(tasks))))
    return made


def _told(task: TaskSummary, verdict: Verdict) -> tuple[bool, bool]:
    """Whether a delta's length is known, and long, where a verdict tells of that."""
    if verdict.kept == verdict.far:
        return False, False
    return task.length is not None, is_long(task)


def sentences(tasks: Sequence[TaskSummary]) -> list[str]:
    """`expectation` in words alone."""
    return [sentence for _, sentence in expectation(tasks)]


def is_long(task: TaskSummary) -> bool:
    """Whether a delta is known to be longer beside its base than near ones are."""
    return task.length is not None and task.length > NEAR


def _sentence(verdict: Verdict, tasks: Sequence[TaskSummary], count: int) -> str:
    """What to expect of tasks of one verdict, of `count` in all."""
    whose = "their" if len(tasks) > 1 else "its"
    who = _who([task.name for task in tasks], count)
    if verdict is LOST:
        return f"{who} {verdict.word} of {whose} gain over the base"
    text = f"{who} {verdict.word} of {whose} accuracy"
    so = "so evaluate before you rely on it"
    if verdict is FAR_OUT:
        longest = max(task.length or 0.0 for task in tasks)
        other = "; is it of another base?" if longest >= 1 else ""
        return (
            f"{text}: no model with so long a delta ({longest:.2f} of its base's length{other}) "
            f"was measured at such noise, {so}"
        )
    if verdict.kept is None:
        return f"{text}: no model was measured at such noise, {so}"
    if is_long(tasks[0]) and verdict.far != verdict.kept:
        return f"{text}: {share(verdict.far)} in measured cases with deltas as long"
    text = f"{text}: {share(verdict.kept)} in measured cases"
    if tasks[0].length is not None or verdict.far == verdict.kept:
        return text
    more = "less" if verdict.far is None else share(verdict.far)
    return f"{text}, {more} where deltas were long"


def _who(names: Sequence[str], count: int) -> str:
    """Some or all of `count` tasks as the subject of a sentence, with its verb."""
    if len(names) == count:
        every = "both" if count == 2 else f"all {count}"
        return "the task keeps" if count == 1 else f"{every} tasks keep"
    some = f" ({', '.join(names)})" if len(names) <= _MOST_NAMES else ""
    return f"{len(names)} tasks{some} keep" if len(names) > 1 else f"1 task{some} keeps"


def approximate(tasks: Sequence[TaskSummary]) -> list[str]:
    """Which predictions are approximate, and why: a line for each reason."""
    found: dict[str, list[str]] = {}
    for task in tasks:
        for reason in filter(None, task.approximate.split("; ")):
            found.setdefault(reason, []).append(task.name)
    return [f"{_predictions(names, len(tasks))}: {reason}" for reason, names in found.items()]


def _predictions(names: Sequence[str], count: int) -> str:
    if len(names) == count:
        return "the prediction is approximate" if count == 1 else "the predictions are approximate"
    return f"what is predicted of {some_of(names, _MOST_NAMES)} is approximate"
