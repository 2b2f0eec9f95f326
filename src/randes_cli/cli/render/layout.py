"""Lines of text that fit a width: tables, bars, and names that may hold anything."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from randes_cli.core.prediction.verdict import ALL, MOST, MUCH, NEARLY_ALL, Verdict
from randes_cli.errors import printable

#: Colours that stay apart for colour-blind eyes (Okabe and Ito), on dark and light grounds.
GOOD, MIDDLING, POOR = "#56b4e9", "#e69f00", "#d55e00"

_GAP = 2
#: Cells that the first column of names keeps while there are other columns to give up.
_NAME = 24
#: Cells that titles of other columns keep, where these leave none for names.
_TITLE = 6
_EIGHTHS = " ▏▎▍▌▋▊▉"


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` cells, cut in its first half: names differ at their ends."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    if width < 6:
        return set_cell_size(text, max(0, width - 1)).rstrip() + "…" * (width > 0)
    end = _end_of(text, (width - 1) * 3 // 4)
    return set_cell_size(text, width - 1 - cell_len(end)).rstrip() + "…" + end


def _end_of(text: str, width: int) -> str:
    end = text[-width:] if width > 0 else ""
    while cell_len(end) > width:
        end = end[1:]
    return end


def shorten_apart(names: Sequence[str], width: int) -> list[str]:
    """`shorten` of each name; what would look like another is cut where it differs from it."""
    made = [shorten(name, width) for name in names]
    alike: dict[str, set[str]] = {}
    for name, short in zip(names, made, strict=True):
        alike.setdefault(short, set()).add(printable(name))
    if width < 6 or len(alike) == len(set(names)):
        return made
    return [
        short if len(alike[short]) == 1 else _before_the_same_end(name, alike[short], width)
        for name, short in zip(map(printable, names), made, strict=True)
    ]


def _before_the_same_end(name: str, others: Collection[str], width: int) -> str:
    """A name without its beginning and, where the others' ends fill the width, without its end."""
    ends = zip(*(reversed(other) for other in others), strict=False)
    same = next((n for n, pair in enumerate(ends) if len(set(pair)) > 1), min(map(len, others)))
    if same < width - 2:
        return "…" + _end_of(name, width - 1)
    tail = (width - 2) // 2
    return "…" + _end_of(name[: len(name) - same + tail], width - 2) + "…"


def verdict_style(verdict: Verdict) -> str:
    if verdict in (ALL, NEARLY_ALL, MOST):
        return GOOD
    return MIDDLING if verdict is MUCH else POOR


def bar(share: float, width: int, style: str) -> Text:
    """A bar of `share` (0 to 1) of `width` cells, to an eighth of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    drawn = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return Text.assemble((drawn, style), ("·" * (width - len(drawn)), "dim"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: whether it holds names: left-aligned, shortened where the table is too wide.
        drop: which column goes first where shortening is not enough (0: never).
    """

    title: str
    name: bool = False
    drop: int = 0


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int
) -> list[Text]:
    """A heading and one line per row, none wider than `width` cells."""
    texts = [[Text(printable(c)) if isinstance(c, str) else c for c in row] for row in rows]
    filled = [max((row[n].cell_len for row in texts), default=0) for n in range(len(columns))]
    needed = [
        max(cell_len(column.title), cells) for column, cells in zip(columns, filled, strict=True)
    ]
    shown = list(range(len(columns)))

    def room(place: int) -> int:
        return width - sum(needed[n] + _GAP for n in shown if n != place)

    names = [n for n, column in enumerate(columns) if column.name]
    least = min(_NAME, needed[names[0]])
    for drop in sorted({column.drop for column in columns if column.drop}, reverse=True):
        if room(names[0]) < least:
            shown = [n for n in shown if columns[n].drop != drop]
    for place in sorted(set(shown).difference(names), key=lambda n: filled[n] - needed[n]):
        lacking = max(0, least - room(names[0]))
        needed[place] = max(filled[place], min(needed[place], _TITLE), needed[place] - lacking)
    for place in names:
        if place in shown:
            needed[place] = min(needed[place], max(4, room(place)))
            cut = shorten_apart([row[place].plain for row in texts], needed[place])
            for row, name in zip(texts, cut, strict=True):
                if name != row[place].plain:
                    row[place] = Text(name, row[place].style)
    head = [Text(_cut(column.title, needed[n]), "bold") for n, column in enumerate(columns)]
    return [_line(columns, shown, needed, cells) for cells in [head, *texts]]


def _cut(title: str, width: int) -> str:
    """A title in at most `width` cells: unlike names, titles differ at their beginnings."""
    return title if cell_len(title) <= width else set_cell_size(title, max(0, width - 1)) + "…"


def _line(
    columns: Sequence[Column], shown: Sequence[int], widths: Sequence[int], cells: Sequence[Text]
) -> Text:
    line = Text(no_wrap=True)
    for n in shown:
        cell = cells[n]
        if cell.cell_len > widths[n]:
            cell = Text(shorten(cell.plain, widths[n]), cell.style)
        gap = " " * (widths[n] - cell.cell_len)
        line.append_text(Text.assemble(cell, gap) if columns[n].name else Text.assemble(gap, cell))
        line.append(" " * _GAP)
    line.rstrip()
    return line


def more(count: int) -> Text:
    """The line in place of what is not shown."""
    return Text(f"… {count:,} more (--full)", "dim")


def fields(pairs: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """A line for each pair, or more where its value is wider than there is room."""
    label = max(len(name) for name, _ in pairs)
    made = []
    for name, value in pairs:
        head = f"{name:{label}}  "
        for part in in_lines(value, width - len(head)):
            made.append(Text.assemble((head, "bold"), part))
            head = " " * len(head)
    return made


def in_lines(text: str, width: int, indent: str = "") -> list[str]:
    """A text in lines of at most `width` cells, broken between words; a longer word is shortened.

    `indent` goes before every line but the first. A number keeps its % or ×.
    """
    made, line = list[str](), ""
    for word in re.split(" (?![%×])", printable(text)):
        longer = f"{line} {word}" if line.strip() else line + word
        if cell_len(longer) > width and line.strip():
            made.append(line)
            longer = indent + word
        line = longer if cell_len(longer) <= width else indent + shorten(word, width - len(indent))
    return [*made, line]
