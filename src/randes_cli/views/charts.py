"""Small charts as inline SVG: no library, no style attribute, colours from the page."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

from randes_cli.errors import printable
from randes_cli.views.palette import BLUE, CYCLE, VERMILION
from randes_cli.views.text import decimal

Matrix = Sequence[Sequence[float]]
Points = Sequence[tuple[float, float]]

#: Tasks up to which a heatmap's cells are drawn one by one; more become one image.
MOST_CELLS = 24
#: Tasks up to which the cells carry numbers, and up to which tasks are named at the edges.
MOST_NUMBERS, MOST_LABELS = 10, 60
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 460, 230, 48, 40


def text(words: str) -> str:
    """Words as HTML or SVG text."""
    return escape(printable(words), quote=True)


def bar(share: float) -> str:
    """A bar of `share`, 0 to 1."""
    width = round(100 * max(0.0, min(1.0, share)), 1)
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="10"/><rect width="{width}" height="10"/></svg>'
    )


def _weight(value: float, scale: float) -> float:
    """How opaque a cosine is drawn; small ones get more than their share."""
    return float(min(1.0, abs(value) / scale) ** 0.7)


def _png(matrix: Matrix, scale: float) -> str:
    """A data: address of an image with one pixel for each cell; 0 is transparent."""
    ends = [tuple(bytes.fromhex(colour[1:])) for colour in (BLUE, VERMILION)]
    lines = bytearray()
    for row, values in enumerate(matrix):
        lines.append(0)
        for column, value in enumerate(values):
            alpha = 0 if row == column else round(255 * _weight(value, scale))
            lines += bytes((*ends[value > 0], alpha))
    header = struct.pack(">IIBBBBB", len(matrix), len(matrix), 8, 6, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")):
        made += struct.pack(">I", len(body)) + kind + body
        made += struct.pack(">I", zlib.crc32(kind + body))
    return "data:image/png;base64," + base64.b64encode(made).decode()


def heatmap(names: Sequence[str], matrix: Matrix, scale: float, key: str) -> str:
    """A matrix of cosines; `key` names it to the page's script, which shows hovered values."""
    count = len(names)
    cell = 34 if count <= MOST_NUMBERS else 20 if count <= MOST_CELLS else max(4, 640 // count)
    named = count <= MOST_LABELS
    size = min(11, max(5, cell - 1))
    edge = 6 + (size * 0.62 * min(18, max(map(len, names), default=1)) if named else 0)
    whole = edge + count * cell + 1
    made = [
        f'<svg class="heat" data-key="{key}" data-cell="{cell}" data-edge="{edge:.1f}" '
        f'viewBox="0 0 {whole:.1f} {whole:.1f}" role="img" aria-label="cosines {key}">'
        f'<g transform="translate({edge:.1f} {edge:.1f})">'
        f'<rect class="ground" width="{count * cell}" height="{count * cell}"/>'
    ]
    if count <= MOST_CELLS:
        made += [
            f'<rect x="{column * cell}" y="{row * cell}" width="{cell}" height="{cell}" '
            f'fill="{VERMILION if value > 0 else BLUE}" '
            f'fill-opacity="{_weight(value, scale):.3f}"/>'
            for row, values in enumerate(matrix)
            for column, value in enumerate(values)
            if row != column
        ]
    else:
        made.append(
            f'<image width="{count * cell}" height="{count * cell}" href="{_png(matrix, scale)}"/>'
        )
    if count <= MOST_NUMBERS:
        made += [
            f'<text class="number" x="{(column + 0.5) * cell}" y="{(row + 0.5) * cell + 3.5}">'
            f"{'1' if row == column else decimal(value, 3).replace('0.', '.', 1)}</text>"
            for row, values in enumerate(matrix)
            for column, value in enumerate(values)
        ]
    for place, name in enumerate(names if named else ()):
        label = text(name if len(name) <= 18 else name[:9] + "…" + name[-8:])
        middle = (place + 0.5) * cell + size * 0.35
        made.append(
            f'<text x="-4" y="{middle:.1f}" font-size="{size}" class="end">{label}</text>'
            f'<text transform="translate({middle:.1f} -4) rotate(-90)" font-size="{size}">'
            f"{label}</text>"
        )
    made.append(f'<rect class="cursor" width="{cell}" height="{cell}" visibility="hidden"/>')
    return "".join(made) + "</g></svg>"


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    span = (high - low) or 1.0
    step = 10.0 ** floor(log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first = ceil(low / step - 1e-9)
    return [n * step for n in range(first, floor(high / step + 1e-9) + 1)]


def _frame(x: tuple[float, float], y: tuple[float, float], labels: tuple[str, str]) -> list[str]:
    """Axes with ticks, and a grid."""
    made, floor_line = [], _HEIGHT - _BOTTOM
    for value in _ticks(*x):
        place = _LEFT + (value - x[0]) / ((x[1] - x[0]) or 1) * (_WIDTH - _LEFT - 10)
        made.append(
            f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="8" y2="{floor_line}"/>'
            f'<text class="middle" x="{place:.1f}" y="{floor_line + 14}">{value:g}</text>'
        )
    for value in _ticks(*y):
        place = _height(value, y)
        made.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" '
            f'y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text class="end" x="{_LEFT - 5}" y="{place + 4:.1f}">{value:g}</text>'
        )
    middle = (_LEFT + _WIDTH) / 2
    made.append(f'<text class="middle" x="{middle}" y="{_HEIGHT - 6}">{text(labels[0])}</text>')
    made.append(
        f'<text class="middle" transform="translate(11 {(_HEIGHT - _BOTTOM) / 2}) rotate(-90)">'
        f"{text(labels[1])}</text>"
    )
    return made


def _height(value: float, y: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (value - y[0]) / ((y[1] - y[0]) or 1) * (_HEIGHT - _BOTTOM - 12)


def line_chart(series: Mapping[str, Points], labels: tuple[str, str], *, named: int = 14) -> str:
    """Lines over common axes, with a legend of the first `named`."""
    points = [point for line in series.values() for point in line]
    x = (min(p[0] for p in points), max(p[0] for p in points))
    y = (min(p[1] for p in points), max(p[1] for p in points))
    made = _frame(x, y, labels)
    for number, (name, line) in enumerate(series.items()):
        path = " ".join(
            f"{_LEFT + (a - x[0]) / ((x[1] - x[0]) or 1) * (_WIDTH - _LEFT - 10):.1f},"
            f"{_height(b, y):.1f}"
            for a, b in line
        )
        dashes = ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')
        dash = dashes[number // len(CYCLE) % len(dashes)]
        made.append(
            f'<polyline fill="none" stroke="{CYCLE[number % len(CYCLE)]}" stroke-width="1.5"{dash} '
            f'points="{path}"><title>{text(name)}</title></polyline>'
        )
    chart = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(labels[1])}">{"".join(made)}</svg>'
    )
    return chart + legend(list(series)[:named], len(series) - named)


def legend(names: Sequence[str], more: int = 0) -> str:
    """Names beside their colours."""
    items = [
        f'<li><svg class="swatch" viewBox="0 0 10 10"><rect width="10" height="10" '
        f'fill="{CYCLE[number % len(CYCLE)]}"/></svg>{text(name)}</li>'
        for number, name in enumerate(names)
    ]
    if more > 0:
        items.append(f"<li>and {more} more</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def histogram(series: Mapping[str, Sequence[float]], label: str, bins: int = 60) -> str:
    """Shares of the values in equal steps from the least to the largest magnitude."""
    limit = max((abs(v) for values in series.values() for v in values), default=0.0) or 1.0
    lines: dict[str, Points] = {}
    for name, values in series.items():
        counts = [0] * bins
        for value in values:
            counts[min(bins - 1, int((value + limit) / (2 * limit) * bins))] += 1
        share = [count / max(1, len(values)) for count in counts]
        edges = [limit * (2 * n / bins - 1) for n in range(bins + 1)]
        lines[name] = [(edge, share[n]) for n in range(bins) for edge in edges[n : n + 2]]
    return line_chart(lines, (label, "share of the pairs"))


def stacked(parts: Sequence[tuple[str, float]], whole: float) -> str:
    """One bar of consecutive parts, `whole` being its full width."""
    start, made = 0.0, []
    for number, (name, size) in enumerate(parts):
        width = 100 * size / (whole or 1.0)
        made.append(
            f'<rect x="{start:.2f}" width="{width:.2f}" height="10" '
            f'fill="{CYCLE[number % len(CYCLE)]}"><title>{text(name)}</title></rect>'
        )
        start += width
    return (
        '<svg class="stack" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="bytes"><rect class="track" width="100" height="10"/>{"".join(made)}</svg>'
    )
