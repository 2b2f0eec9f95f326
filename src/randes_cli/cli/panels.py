"""Panels of the help, in the order in which people ask, and what stands in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

GOES_IN, MADE, COMES_OUT = "What goes in", "How it is made", "What comes out"
RUNS, SPEAKS = "How it runs", "How it speaks"

#: Completes a word under the cursor.
Offer = Callable[[str], list[str]]


def option(
    panel: str | None, metavar: str, text: str, *names: str, offer: Offer | None = None, **more: Any
) -> Any:
    """An option with a value, named after its parameter where no names are given."""
    return typer.Option(
        *names, metavar=metavar, help=text, rich_help_panel=panel, autocompletion=offer, **more
    )


def switch(panel: str | None, text: str, *names: str) -> Any:
    """An option without a value."""
    return typer.Option(*names, help=text, rich_help_panel=panel)


def argument(metavar: str, text: str, offer: Offer | None = None) -> Any:
    """An argument, without its default."""
    return typer.Argument(metavar=metavar, help=text, show_default=False, autocompletion=offer)
