"""What the command under way reads and holds: no input is written over, under whatever name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from randes_cli.errors import UsageError
from randes_cli.limits import StrPath


@dataclass(frozen=True, slots=True)
class _Command:
    """One command.

    Attributes:
        inputs: what its inputs are called, by device and inode.
        held: the names whose write lock it holds.
        edited: those of them that it edits, and so reads and replaces.
    """

    inputs: dict[tuple[int, int], str] = field(default_factory=dict)
    held: set[Path] = field(default_factory=set)
    edited: set[Path] = field(default_factory=set)


_COMMAND: ContextVar[_Command | None] = ContextVar("command", default=None)


@contextlib.contextmanager
def one_command(*, afresh: bool = False) -> Iterator[None]:
    """What is read inside the block is an input of all that is written in it.

    A command that calls others is one command, unless it is to begin `afresh`. Serves as a
    decorator too.
    """
    if _COMMAND.get() is not None and not afresh:
        yield
        return
    token = _COMMAND.set(_Command())
    try:
        yield
    finally:
        _COMMAND.reset(token)


@contextlib.contextmanager
def holding(path: Path, *, edits: bool) -> Iterator[None]:
    """The command has this name's lock for the block; with `edits` it replaces what it read."""
    with one_command():
        command, name = _COMMAND.get(), _name(path)
        if command is None:
            raise AssertionError("no command")
        command.held.add(name)
        if edits:
            command.edited.add(name)
        try:
            yield
        finally:
            command.held.discard(name)
            command.edited.discard(name)


def is_held(path: Path) -> bool:
    """Whether the command under way has the lock of this name."""
    command = _COMMAND.get()
    return command is not None and _name(path) in command.held


def _name(path: Path) -> Path:
    """A name in its folder, however the folder is called; a link there is a name of its own."""
    return path.parent.resolve() / path.name


def note_input(path: Path) -> None:
    """A file is read by the command under way."""
    command = _COMMAND.get()
    if command is not None:
        with contextlib.suppress(OSError, ValueError):
            found = path.stat()
            command.inputs[found.st_dev, found.st_ino] = str(path)


def note_sources(sources: Iterable[StrPath | None]) -> None:
    """Checkpoints that the command names, and may have others read: files, or all of a folder."""
    for source in sources:
        path = Path(source or "")
        with contextlib.suppress(OSError, ValueError):
            for file in sorted(path.rglob("*")) if source and path.is_dir() else [path]:
                if source and file.is_file():
                    note_input(file)


def refuse_input(path: Path) -> None:
    """Raise UsageError where an output is, under whatever name, an input of the command."""
    command = _COMMAND.get()
    if command is None or _name(path) in command.edited:
        return
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        source = command.inputs.get((found.st_dev, found.st_ino))
        # A number is given anew once its file is gone: is it still the input's?
        if source is not None and path.samefile(source):
            raise UsageError(f"{path}: is the input {source}; name another output")
