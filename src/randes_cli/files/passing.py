"""Folders that go when what is done in them has ended, however it ends."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from randes_cli.files.disk import wrap_os_error
from randes_cli.files.upload import passing_place
from randes_cli.interrupts import unstoppable


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
        _make(made, str(passing_place()))
        yield made[0].resolve()
    finally:
        _remove(made)
