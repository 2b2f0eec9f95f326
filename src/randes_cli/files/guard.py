"""Which files a command reads, so that none of them is written over, under whatever name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from randes_cli.errors import UsageError
from randes_cli.limits import StrPath

#: By device and inode, what the inputs of the command under way are called.
_INPUTS: ContextVar[dict[tuple[int, int], str] | None] = ContextVar("inputs", default=None)


@contextlib.contextmanager
def one_command() -> Iterator[None]:
    """What is opened for reading inside the block is an input of all that is written in it.

    A command that calls others is one command. Serves as a decorator too.
    """
    if _INPUTS.get() is not None:
        yield
        return
    token = _INPUTS.set({})
    try:
        yield
    finally:
        _INPUTS.reset(token)


def note_input(path: Path) -> None:
    """A file is read by the command under way."""
    inputs = _INPUTS.get()
    if inputs is not None:
        with contextlib.suppress(OSError, ValueError):
            found = path.stat()
            inputs[found.st_dev, found.st_ino] = str(path)


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
    inputs = _INPUTS.get()
    if not inputs:
        return
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        source = inputs.get((found.st_dev, found.st_ino))
        if source is not None:
            raise UsageError(f"{path}: is the input {source}; name another output")
