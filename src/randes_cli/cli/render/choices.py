"""The frontier: the choices of bits, groups and shares than which none keeps as much for less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.output import human
from randes_cli.cli.render.layout import Column, table
from randes_cli.stats.frontier import frontier

if TYPE_CHECKING:
    from randes_cli.reports import Alternative

#: Titles, and which column goes first on a narrow terminal.
_HEADS = (
    ("x base", 2),
    ("bits", 0),
    ("groups", 0),
    ("elements", 0),
    ("gain kept", 0),
    ("in measured families", 1),
)


def choice_table(choices: Sequence[Alternative], base_bytes: int, width: int) -> list[Text]:
    """Bytes and predicted share of the gain of the best choices; ``*`` marks the bank at hand."""
    best = frontier(choices)
    room = max((len(human(one.bank_bytes)) for one in best), default=0)
    rows: list[list[str | Text]] = [
        [
            ("*" if one.present else " ") + human(one.bank_bytes).rjust(room),
            f"{one.bank_bytes / max(1, base_bytes):.3f}",
            str(one.bits),
            str(one.groups),
            f"1/{one.share}" if one.share > 1 else "all",
            f"{one.kept:.1%}",
            f"{one.kept_low:.1%} to {one.kept_high:.1%}",
        ]
        for one in best
    ]
    columns = [Column(head, drop=drop) for head, drop in _HEADS]
    heading = Text("what other banks would keep of the gain, predicted (* this one)", "bold")
    return [heading, *table([Column("bank", name=True), *columns], rows, width)]
