"""The process's environment: what the command line sets for itself alone."""

from __future__ import annotations

import os

#: As it was given to us, for the commands that users have us run.
GIVEN = dict(os.environ)
#: What `TERM` says of terminals that take no commands.
_DUMB = ("dumb", "unknown")


def prepare() -> None:
    """Keep NumPy's matrix products on the thread that asks for them: the cores have work."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if os.environ.get("TERM", "").lower() in _DUMB:
        _say_width()


def _say_width() -> None:
    """Have rich, for which all dumb terminals are 80 wide, know how wide this one is."""
    try:
        size = os.get_terminal_size(1)
    except OSError:  # no terminal
        return
    if size.columns and size.lines:
        os.environ.setdefault("COLUMNS", str(size.columns))
        os.environ.setdefault("LINES", str(size.lines))
