"""matplotlib's figures as images for a page, in the colours of the reader's window."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from randes_cli.errors import UsageError
from randes_cli.views.figures import Layout, settings, subplots
from randes_cli.views.panels import INK, LINE, SOFT

#: What stands for a colour of the page: in the light and in the dark.
_THEMED = {INK: ("ink", "#e6e9ec"), SOFT: ("soft", "#9aa4ad"), LINE: ("line", "#333b42")}
_COLOURS = re.compile("|".join(_THEMED))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that needs nothing else.

    Attributes:
        address: a data: address of SVG.
        words: what it shows, for who cannot see it.
        width, height: in CSS pixels.
        box: left, top, width and height of the axes, as shares of the image.
    """

    address: str
    words: str
    width: int
    height: int
    box: tuple[float, float, float, float]


def picture(
    draw: Callable[[Any], None],
    words: str,
    width: float,
    height: float,
    layout: Layout = "constrained",
) -> Picture:
    """What `draw` puts on an axis of a figure of so many inches."""
    with settings(**{"svg.fonttype": "none", "font.sans-serif": ["system-ui", "DejaVu Sans"]}):
        figure, (axis,) = subplots(width, height, layout=layout)
        draw(axis)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        left, low, wide, high = axis.get_position().bounds
    data = base64.b64encode(_themed(out.getvalue()).encode()).decode()
    return Picture(
        address=f"data:image/svg+xml;base64,{data}",
        words=words,
        width=round(width * 100),
        height=round(height * 100),
        box=(left, 1 - low - high, wide, high),
    )


def _themed(svg: str) -> str:
    """The image with our three greys as variables that follow the reader's colour scheme."""
    light = "".join(f"--{name}:{colour};" for colour, (name, _) in _THEMED.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in _THEMED.values())
    style = f"svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    body = _COLOURS.sub(lambda found: f"var(--{_THEMED[found[0]][0]})", svg[svg.index("<svg") :])
    return body.replace("<defs>", f"<style>{style}</style><defs>", 1)


def can_draw() -> bool:
    try:
        settings()
    except UsageError:
        return False
    return True
