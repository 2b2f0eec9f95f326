"""The frontier: the choices of bits, groups and shares than which none keeps as much for less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.output import human
from randes_cli.cli.render.layout import Column, table

if TYPE_CHECKING:
    from randes_cli.reports import Alternative

#: Rows that are shown: of a longer frontier those that are worth most.
_MOST_ROWS = 10
#: So much more of the gain makes another row worth showing.
_STEPS = (0.03, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0)


def choice_table(choices: Sequence[Alternative], base_bytes: int, width: int) -> list[Text]:
    """Bytes and predicted share of the gain of the best choices; ``*`` marks the bank at hand."""
    rows: list[list[str | Text]] = [
        [
            ("*" if one.present else " ") + human(one.bank_bytes),
            f"{one.bank_bytes / max(1, base_bytes):.3f}",
            str(one.bits),
            str(one.groups),
            f"1/{one.share}" if one.share > 1 else "all",
            f"{one.kept:.1%}",
            f"{one.kept_low:.1%} to {one.kept_high:.1%}",
        ]
        for one in frontier(choices)
    ]
    heads = ("x base", "bits", "groups", "elements", "gain kept", "in measured families")
    columns = [Column("bank", name=True), *(Column(head, drop=n) for n, head in enumerate(heads))]
    return [Text("what other banks would keep, predicted (* this one)", "bold")] + [
        *table(columns, rows, width)
    ]


def frontier(choices: Sequence[Alternative], most: int = _MOST_ROWS) -> list[Alternative]:
    """The bank at hand and the best choices, thinned to those that add most, smallest first."""
    best = [one for one in choices if one.best]
    here = [one for one in choices if one.present and not one.best]
    shown = best
    for step in reversed(_STEPS):
        shown = _thinned(best, step)
        if len(shown) + len(here) <= most:
            break
    return sorted([*shown, *here], key=lambda one: (one.bank_bytes, one.kept))


def _thinned(best: Sequence[Alternative], step: float) -> list[Alternative]:
    """Those that keep at least `step` more than the last one shown, and the bank at hand."""
    made: list[Alternative] = []
    for one in best:
        if not made or one.present or one.kept >= made[-1].kept + step:
            made.append(one)
    return made
