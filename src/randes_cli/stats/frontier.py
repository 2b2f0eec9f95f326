"""The choices of bits, groups and shares for a bank's tasks, and which are worth showing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from randes_cli.core.prediction.quality import Kept
from randes_cli.reports import Alternative
from randes_cli.stats.outline import Outline

#: Numbers of groups that are looked at besides those asked for, up to the number of tasks.
GROUPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: Shares of the gain are compared to so many digits: what is beyond is noise.
DIGITS = 4
#: Rows of a frontier that are shown, and how much more of the gain makes another worth showing.
MOST_SHOWN = 10
_STEPS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03)


def weigh_all(outline: Outline, groups: Iterable[int]) -> tuple[Alternative, ...]:
    """Every number of bits and every share with these numbers of groups, smallest bank first."""
    made = [
        choice
        for number in sorted(set(groups))
        for bits in outline.widths()
        for choice in outline.weigh(number, bits)
    ]
    return marked(made)


def marked(choices: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Choices, smallest first, those marked than which none keeps as much in no more bytes."""
    made, most = [], -1.0
    for one in sorted(choices, key=lambda one: (one.bank_bytes, -one.kept, one.groups)):
        kept = round(one.kept, DIGITS)
        made.append(replace(one, best=kept > most))
        most = max(most, kept)
    return tuple(made)


def resized(
    choices: Iterable[Alternative], size: int, kept: Kept | None, cosine: float
) -> tuple[Alternative, ...]:
    """The choices, the bank at hand as it came to be."""
    return marked(
        present(one, size, kept, cosine) if one.present and kept else one for one in choices
    )


def present(one: Alternative, size: int, kept: Kept, cosine: float) -> Alternative:
    """A choice as the bank at hand, of which is known what its tasks keep."""
    return replace(
        one,
        bank_bytes=size,
        predicted_cosine=cosine,
        present=True,
        exact=True,
        approximate=False,
        kept=kept.mean,
        kept_low=kept.low,
        kept_high=kept.high,
    )


def group_choices(tasks: int, groups: int) -> list[int]:
    """Numbers of groups worth a look: few, the neighbours of `groups`, and one a task."""
    wanted = {*GROUPS, groups, groups // 2, 2 * groups, tasks}
    return sorted(number for number in wanted if 1 <= number <= max(1, tasks, groups))


def frontier(choices: Sequence[Alternative]) -> list[Alternative]:
    """The bank at hand and the best choices, thinned to those that add most, smallest first."""
    best = [one for one in choices if one.best]
    here = [one for one in choices if one.present and not one.best]
    shown = best
    for step in _STEPS:
        shown = _thinned(best, step)
        if len(shown) + len(here) <= MOST_SHOWN:
            break
    return sorted([*shown, *here], key=lambda one: (one.bank_bytes, one.kept))


def _thinned(best: Sequence[Alternative], step: float) -> list[Alternative]:
    """Those that keep at least `step` more than the last one shown, and the bank at hand."""
    made: list[Alternative] = []
    for one in best:
        if not made or one.present or one.kept >= made[-1].kept + step:
            made.append(one)
    return made
