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
    it_has = some_of(tasks, 10) or "none"
    return f"no task {name!r}{meant(alike(str(name), tasks, 3))}; it has {it_has}"


def meant(near: Sequence[str]) -> str:
    """A question that goes behind a name that is not known."""
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def absent(path: Path) -> str:
    """What to say of a path where nothing is."""
    if path.is_symlink():
        return f"{path}: a link to nothing, or to itself"
    return f"{path}: not found{meant_beside(path)}"


def meant_beside(path: Path) -> str:
    """A question after the name that is most like a missing one in its folder; empty if none is.

    Hidden files, such as our own locks, are asked for by hidden names alone.
    """
    near, hidden = list[str](), path.name.startswith(".")
    with suppress(OSError):
        names = [other.name for other in path.parent.iterdir()]
        near = alike(path.name, [one for one in names if one.startswith(".") == hidden], 1)
    return meant([str(path.with_name(one)) for one in near])
