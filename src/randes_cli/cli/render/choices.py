"""Neighbouring choices of bits and groups, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from randes_cli.cli.output import human
from randes_cli.cli.render.layout import Column, table

if TYPE_CHECKING:
    from randes_cli.reports import Alternative


def choice_table(choices: Sequence[Alternative], groups: int, tasks: int, width: int) -> list[Text]:
    """Bank size and mean predicted cosine: a row for each width, a column for each grouping.

    Columns are one group, the neighbours of `groups`, and one group a task; ``*`` marks the
    bank at hand.
    """
    near = {1, groups // 2, groups, 2 * groups, tasks}
    columns = sorted({one.groups for one in choices} & near)
    found = {(one.bits, one.groups): one for one in choices}
    rows: list[list[str | Text]] = []
    for bits in sorted({one.bits for one in choices}, reverse=True):
        row: list[str | Text] = [str(bits)]
        for group in columns:
            one = found.get((bits, group))
            mark = "*" if one is not None and one.present else " "
            cell = "-" if one is None else f"{human(one.bank_bytes)} {one.predicted_cosine:.3f}"
            row.append(cell + mark)
        rows.append(row)
    heads = [f"{group} group" + ("s" if group > 1 else "") for group in columns]
    titles = [Column("bits", name=True), *(Column(head, drop=n) for n, head in enumerate(heads))]
    heading = Text("bytes and mean predicted cosine by bits and groups", "bold")
    return [heading, *table(titles, rows, width)]
