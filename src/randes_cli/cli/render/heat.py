"""Matrices of cosines as coloured numbers, before and during retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from randes_cli.cli.render.layout import shorten
from randes_cli.views.text import decimal

#: From weak to strong, for negative and positive cosines: grounds that carry white letters
#: (contrast of 4.5 and more), and stand out from black and from white windows alike.
NEGATIVE = ("#4d6472", "#3f6783", "#2d6b97", "#186faa", "#0072b2")
POSITIVE = ("#75604f", "#855b3a", "#945626", "#a35113", "#b04a00")
#: The share of the full scale from which a cell has a ground; noise has none.
_FAINT = 0.12
_LABEL = 16

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Cells:
    """How the cells of one matrix are drawn: `decimals`, and the value of the full colour."""

    decimals: int
    full_scale: float

    @property
    def width(self) -> int:
        """Cells of the terminal that one number takes, with a blank before it."""
        return self.decimals + 3

    def draw(self, value: float, *, diagonal: bool) -> Text:
        """One number on its colour, without its leading zero."""
        if diagonal:
            return Text(f"{'1':>{self.width}}", "dim")
        number = decimal(value, self.decimals).replace("0.", ".", 1)
        return Text(f"{number:>{self.width}}", _style(value / self.full_scale))


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
    scale, count = full_scale(before), len(names)
    cells = Cells(3, scale)
    # Two digits side by side take more room than three below each other: never shown so.
    if label + 2 * count * cells.width + 2 <= width:
        return _side_by_side(names, numbers, (before, during), cells, label)
    made = []
    for title, matrix in (("before", before), ("during retrieval", during)):
        made += [Text(title, "italic"), *_stacked(names, numbers, matrix, scale, (label, width))]
    return made


def _heading(numbers: Sequence[int], cells: Cells) -> str:
    return "".join(f"{number:>{cells.width}}" for number in numbers)


def _label(number: int, name: str, numbers: Sequence[int], width: int) -> Text:
    digits = max(len(str(one)) for one in numbers)
    text = f"{number:>{digits}} {shorten(name, width - digits - 1)}"
    return Text(text + " " * (width - Text(text).cell_len))


def _row(values: Sequence[float], row: int, start: int, cells: Cells) -> Text:
    drawn = (cells.draw(v, diagonal=row == start + c) for c, v in enumerate(values))
    return Text.assemble(*drawn)


def _side_by_side(
    names: Sequence[str],
    numbers: Sequence[int],
    pair: tuple[Matrix, Matrix],
    cells: Cells,
    label: int,
) -> list[Text]:
    span = len(names) * cells.width
    made = [
        Text(f"{'':{label}}{'  before':{span}}    during retrieval".rstrip(), "italic"),
        Text(f"{'':{label}}{_heading(numbers, cells)}  {_heading(numbers, cells)}", "bold"),
    ]
    for row, name in enumerate(names):
        line = _label(numbers[row], name, numbers, label)
        halves = [_row(matrix[row], row, 0, cells) for matrix in pair]
        made.append(Text.assemble(line, halves[0], "  ", halves[1]))
    return made


def _stacked(
    names: Sequence[str],
    numbers: Sequence[int],
    matrix: Matrix,
    scale: float,
    room: tuple[int, int],
) -> list[Text]:
    label, width = room
    decimals = next((d for d in (3, 2) if label + len(names) * (d + 3) <= width), 2)
    cells = Cells(decimals, scale)
    across = max(1, (width - label) // cells.width)
    made = []
    for start in range(0, len(names), across):
        made.append(Text(" " * label + _heading(numbers[start : start + across], cells), "bold"))
        for row, name in enumerate(names):
            values = matrix[row][start : start + across]
            drawn = _row(values, row, start, cells)
            made.append(Text.assemble(_label(numbers[row], name, numbers, label), drawn))
    return made
