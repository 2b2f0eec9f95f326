"""What the command under way reads and holds: no input is written over, under whatever name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from randes_cli.errors import CheckpointError, HubError, UsageError
from randes_cli.files.local.system import resolved
from randes_cli.files.location import Place, RemotePath, Version, as_place
from randes_cli.limits import StrPath, as_source


class Stamp(NamedTuple):
    """What tells that a file is another than it was: even one that is written over in place."""

    device: int
    inode: int
    size: int
    modified_ns: int


def stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Steady(Protocol):
    """What may not change while it is read."""

    def changed(self) -> Place | None:
        """A file of it that is not what it was when it was opened."""


@dataclass(frozen=True, slots=True)
class _Command:
    """One command.

    Attributes:
        inputs: what its inputs are called, by device and inode, or by address.
        versions: of its inputs in stores, as they were when first opened.
        held: the names whose write lock it holds.
        edited: those of them that it edits, and so reads and replaces.
        steady: what may not change while it is read, by the object that reads it.
    """

    inputs: dict[tuple[int, int] | RemotePath, str] = field(default_factory=dict)
    versions: dict[RemotePath, Version] = field(default_factory=dict)
    held: set[Place] = field(default_factory=set)
    edited: set[Place] = field(default_factory=set)
    steady: dict[int, Steady] = field(default_factory=dict)


_COMMAND: ContextVar[_Command | None] = ContextVar("command", default=None)


@contextlib.contextmanager
def one_command(*, afresh: bool = False) -> Iterator[_Command]:
    """What is read inside the block is an input of all that is written in it.

    A command that calls others is one command, unless it is to begin `afresh`. Serves as a
    decorator too.
    """
    command = _COMMAND.get()
    if command is not None and not afresh:
        yield command
        return
    command = _Command()
    token = _COMMAND.set(command)
    try:
        yield command
    finally:
        _COMMAND.reset(token)


@contextlib.contextmanager
def holding(path: Place, *, edits: bool) -> Iterator[None]:
    """The command has this name's lock for the block; with `edits` it replaces what it read."""
    with one_command() as command:
        name = _name(path)
        command.held.add(name)
        if edits:
            command.edited.add(name)
        try:
            yield
        finally:
            command.held.discard(name)
            command.edited.discard(name)


def is_held(path: Place) -> bool:
    """Whether the command under way has the lock of this name."""
    command = _COMMAND.get()
    return command is not None and _name(path) in command.held


def _name(path: Place) -> Place:
    """A name in its folder, however the folder is called; a link there is a name of its own."""
    if isinstance(path, RemotePath):
        return path
    return resolved(path.parent) / path.name


def note_input(path: Place, version: Version | None = None) -> None:
    """A file is read by the command under way; `version` is that of one in a store."""
    command = _COMMAND.get()
    if command is not None and isinstance(path, RemotePath):
        command.inputs[path] = str(path)
        if version is not None:
            command.versions.setdefault(path, version)
    elif command is not None and isinstance(path, Path):
        with contextlib.suppress(OSError, ValueError):
            found = path.stat()
            command.inputs[found.st_dev, found.st_ino] = str(path)


def note_sources(sources: Iterable[StrPath | None]) -> None:
    """Checkpoints that the command names, and may have others read: files, or all of a folder."""
    for source in sources:
        place = None if source is None else as_place(as_source(source))
        for file in [place] if isinstance(place, RemotePath) else _files(place):
            note_input(file)


def _files(source: StrPath | None) -> list[Path]:
    """The files that a local path stands for."""
    path = Path(source or "")
    with contextlib.suppress(OSError, ValueError):
        found = sorted(path.rglob("*")) if source and path.is_dir() else [path]
        return [file for file in found if source and file.is_file()]
    return []


def edited_version(path: RemotePath) -> Version | None:
    """The version that an edit under way has read of what it replaces; None where it edits none."""
    command = _COMMAND.get()
    return command.versions.get(path) if command and path in command.edited else None


def reads_far() -> bool:
    """Whether the command under way reads from a store."""
    command = _COMMAND.get()
    return command is not None and bool(command.versions)


def refuse_input(path: Place) -> None:
    """Raise UsageError where an output is, under whatever name, an input of the command."""
    command = _COMMAND.get()
    if command is None or _name(path) in command.edited:
        return
    if isinstance(path, RemotePath):
        if path in command.inputs:
            raise UsageError(f"{path}: is an input; name another output")
        return
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        source = command.inputs.get((found.st_dev, found.st_ino))
        # A number is given anew once its file is gone: is it still the input's?
        if source is not None and path.samefile(source):
            raise UsageError(f"{path}: is the input {source}; name another output")


def watch(steady: Steady) -> None:
    """What is opened may not change before the command commits what it makes of it."""
    command = _COMMAND.get()
    if command is not None:
        command.steady[id(steady)] = steady


def unwatch(steady: Steady) -> None:
    """It is closed, and was read whole and unchanged, or was not of use."""
    command = _COMMAND.get()
    if command is not None:
        with contextlib.suppress(HubError):  # a store that does not answer is asked again
            if steady.changed() is None:
                command.steady.pop(id(steady), None)


def check_steady() -> None:
    """Raise CheckpointError where a file changed while the command under way read it."""
    command = _COMMAND.get()
    for steady in command.steady.values() if command else ():
        path = steady.changed()
        if path is not None:
            raise CheckpointError(
                f"{path}: changed while it was read, so what was made of it is a mixture; "
                "nothing was written; try again when it is finished"
            )


class SteadyFiles:
    """The files of a checkpoint that somebody else reads."""

    def __init__(self, source: StrPath) -> None:
        self._stamps = {file: stamp(file.stat()) for file in _files(source)}

    def changed(self) -> Path | None:
        """A file of it that is not what it was."""
        for file, before in self._stamps.items():
            if not is_still(file, before):
                return file
        return None


def is_still(path: Path, before: Stamp) -> bool:
    with contextlib.suppress(OSError):
        return stamp(path.stat()) == before
    return False


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """`one_command` for what only reads: it claims nothing of files that changed meanwhile."""
    with one_command():
        yield
        check_steady()
