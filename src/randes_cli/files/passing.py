"""Folders that go when what is done in them has ended, however it ends.

One whose process was killed stays behind; the next that makes one removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from randes_cli.files.local.disk import system_errors
from randes_cli.files.local.system import FLAGS, if_dead, lock
from randes_cli.files.upload import passing_place
from randes_cli.interrupts import unstoppable

_PREFIX = "randes-"
#: In such a folder: locked while its process lives, and what is done in it.
_LOCK, _INSIDE = "lock", "files"


@unstoppable
def _make(made: list[Path], held: list[int], place: Path) -> None:
    import tempfile

    with system_errors(place, "making a temporary folder"):
        made.append(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place)))
        (made[0] / _INSIDE).mkdir()
        held.append(os.open(made[0] / f"new-{_LOCK}", os.O_RDWR | os.O_CREAT | FLAGS, 0o600))
    with contextlib.suppress(OSError):  # a file system without locks: then nobody looks
        lock(held[0], wait=False)
        (made[0] / f"new-{_LOCK}").rename(made[0] / _LOCK)


@unstoppable
def _remove(made: list[Path], held: list[int]) -> None:
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
    for fd in held:
        os.close(fd)


def _remove_dead(place: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                folder = Path(entry.path)
                if_dead(folder / _LOCK, partial(_remove_ours, folder))


def _remove_ours(folder: Path) -> None:
    """Remove a folder that `_make` made: somebody else's may have such a name, and a ``lock``."""
    if {path.name for path in folder.iterdir()} == {_INSIDE, _LOCK}:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def passing_folder(place: Path | None = None) -> Iterator[Path]:
    """A new folder at a place; where the system keeps its temporary files (`TMPDIR`) if not said.

    Raises MissingError, NoSpace, InputOutputError.
    """
    made: list[Path] = []
    held: list[int] = []
    place = place or passing_place()
    _remove_dead(place)
    try:
        _make(made, held, place)
        yield (made[0] / _INSIDE).resolve()
    finally:
        _remove(made, held)
