"""The name that was probably meant, for errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from randes_cli.errors import some_of


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like one that is not there; None where none is."""
    return next(iter(alike(name, known, 1)), None)


def alike(name: str, known: Iterable[str], most: int) -> list[str]:
    """The known names that are like one that is not there: the same but for case, or nearly."""
    from difflib import get_close_matches

    names = list(known)
    same = [one for one in names if one.casefold() == name.casefold()]
    return same[:most] or get_close_matches(name, names, n=most)


def no_task(name: str, tasks: Sequence[str]) -> str:
    """What to say of a task that is not among those of a bank."""
    near = alike(str(name), tasks, 3)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"no task {name!r}{meant}; it has {some_of(tasks, 10) or 'none'}"


def absent(path: Path) -> str:
    """What to say of a path where nothing is."""
    if path.is_symlink():
        return f"{path}: a link to nothing, or to itself"
    return f"{path}: not found{meant_beside(path)}"


def meant_beside(path: Path) -> str:
    """A question after the name that is most like a missing one in its folder; empty if none is.

    Hidden files, such as our own locks, are asked for by hidden names alone.
    """
    near, hidden = None, path.name.startswith(".")
    with suppress(OSError):
        names = [other.name for other in path.parent.iterdir()]
        near = nearest(path.name, [one for one in names if one.startswith(".") == hidden])
    return f" (did you mean {path.with_name(near)}?)" if near else ""
