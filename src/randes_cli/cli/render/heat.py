"""Matrices of cosines as coloured numbers, before and during retrieval."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from randes_cli.cli.render.layout import shorten
from randes_cli.views.text import decimal

#: From weak to strong, for negative and positive cosines: grounds that carry white letters
#: (contrast of 4.5 and more), and stand out from black and from white windows alike.
NEGATIVE = ("#4d6472", "#3f6783", "#2d6b97", "#186faa", "#0072b2")
POSITIVE = ("#75604f", "#855b3a", "#945626", "#a35113", "#b04a00")
#: Cells of the terminal that a number takes beside its decimals: a blank, a sign, a point.
_BESIDE = 3
#: The share of the full scale from which a cell has a ground; noise has none.
_FAINT = 0.12
_LABEL = 16

Matrix = Sequence[Sequence[float]]


def cell(value: float, decimals: int, scale: float, *, diagonal: bool) -> Text:
    """One number on its colour, without its leading zero and with a blank before it."""
    if diagonal:
        return Text(f"{'1':>{decimals + _BESIDE}}", "dim")
    number = decimal(value, decimals).replace("0.", ".", 1)
    return Text(f"{number:>{decimals + _BESIDE}}", _style(value / scale))


def _style(share: float) -> str:
    """White letters on a ground as strong as the cosine; the window's own colours for noise."""
    strength = min(1.0, abs(share))
    if strength < _FAINT:
        return ""
    grounds = POSITIVE if share > 0 else NEGATIVE
    step = int((strength - _FAINT) / (1 - _FAINT) * len(grounds))
    return f"#ffffff on {grounds[min(step, len(grounds) - 1)]}"


def full_scale(matrix: Matrix) -> float:
    """The largest magnitude off the diagonal, at least 0.1 so that noise has no colour."""
    values = (abs(v) for r, row in enumerate(matrix) for c, v in enumerate(row) if r != c)
    return max(0.1, max(values, default=0.0))


def heatmaps(
    names: Sequence[str], numbers: Sequence[int], before: Matrix, during: Matrix, width: int
) -> list[Text]:
    """Two matrices of the same tasks, side by side where they fit, else one below the other.

    `numbers` name the columns; rows carry number and name.
    """
    digits = max((len(str(number)) for number in numbers), default=1)
    label = digits + 1 + min(_LABEL, max((len(name) for name in names), default=1))
    labels = [
        _label(f"{number:>{digits}} ", name, label)
        for number, name in zip(numbers, names, strict=True)
    ]
    scale, count = full_scale(before), len(names)
    # Two digits side by side take more room than three below each other: never shown so.
    if label + 2 * count * (3 + _BESIDE) + 2 <= width:
        head = _heading(numbers, 3)
        made = [
            Text(f"{'':{label}}{'  before':{len(head)}}    during retrieval".rstrip(), "italic"),
            Text(f"{'':{label}}{head}  {head}", "bold"),
        ]
        for row, first in enumerate(labels):
            halves = [_row(matrix[row], row, 0, 3, scale) for matrix in (before, during)]
            made.append(Text.assemble(first, halves[0], "  ", halves[1]))
        return made
    decimals = 3 if label + count * (3 + _BESIDE) <= width else 2
    step, made = max(1, (width - label) // (decimals + _BESIDE)), []
    for title, matrix in (("before", before), ("during retrieval", during)):
        made.append(Text(title, "italic"))
        for start in range(0, count, step):
            shown = slice(start, start + step)
            made.append(Text(" " * label + _heading(numbers[shown], decimals), "bold"))
            for row, first in enumerate(labels):
                made.append(first + _row(matrix[row][shown], row, start, decimals, scale))
    return made


def _heading(numbers: Sequence[int], decimals: int) -> str:
    return "".join(f"{number:>{decimals + _BESIDE}}" for number in numbers)


def _label(number: str, name: str, width: int) -> Text:
    text = number + shorten(name, width - len(number))
    return Text(text + " " * (width - Text(text).cell_len))


def _row(values: Sequence[float], row: int, start: int, decimals: int, scale: float) -> Text:
    drawn = (cell(v, decimals, scale, diagonal=row == start + c) for c, v in enumerate(values))
    return Text.assemble(*drawn)
