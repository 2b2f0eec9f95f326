"""The process's environment: what the command line sets for itself alone."""

from __future__ import annotations

import contextlib
import os

#: As it was given to us, for the commands that users have us run.
GIVEN = dict(os.environ)
#: What `TERM` says of terminals that take no commands.
_DUMB = ("dumb", "unknown")
#: What libraries take for a terminal's size.
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
#: Open files that are asked for: what macOS gives at the most.
_OPEN = 10240


def prepare() -> None:
    """Keep NumPy's matrix products on the thread that asks for them: the cores have work."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _forget_absurd_sizes()
    _open_many_files()
    if os.environ.get("TERM", "").lower() in _DUMB:
        _say_width()


def _forget_absurd_sizes() -> None:
    """Have libraries ask the terminal where a variable names a size that none has."""
    for name in _SIZES:
        size = os.environ.get(name, "")
        if not (size.isascii() and size.isdigit() and len(size) <= 4 and int(size)):
            os.environ.pop(name, None)


def _open_many_files() -> None:
    """Take as many open files as the system would give: a bank may have a thousand originals."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        given, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _OPEN if most == resource.RLIM_INFINITY else min(most, _OPEN)
        if given != resource.RLIM_INFINITY and given < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _say_width() -> None:
    """Have rich, for which all dumb terminals are 80 wide, know how wide this one is."""
    try:
        size = os.get_terminal_size(1)
    except OSError:  # no terminal
        return
    if size.columns and size.lines:
        os.environ.setdefault("COLUMNS", str(size.columns))
        os.environ.setdefault("LINES", str(size.lines))
