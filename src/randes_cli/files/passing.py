"""Folders that go when what is done in them has ended, however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from randes_cli.errors import MissingError
from randes_cli.files.atomic import wrap_os_error
from randes_cli.interrupts import unstoppable


def _place() -> str:
    """Where temporary files go. Raises MissingError where the user names a place that is not."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        chosen = os.environ.get(name)
        if chosen:
            if not Path(chosen).is_dir():
                raise MissingError(f"{chosen}: no such folder, and {name} names it")
            return chosen
    return "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()


@unstoppable
def _make(made: list[Path], place: str) -> None:
    try:
        made.append(Path(tempfile.mkdtemp(prefix="randes-", dir=place)))
    except OSError as error:
        raise wrap_os_error(error, place, "making a temporary folder") from error


@unstoppable
def _remove(made: list[Path]) -> None:
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def passing_folder() -> Iterator[Path]:
    """A new folder where the system keeps its temporary files (`TMPDIR`).

    Raises MissingError, NoSpace, InputOutputError.
    """
    made: list[Path] = []
    try:
        _make(made, _place())
        yield made[0].resolve()
    finally:
        _remove(made)
