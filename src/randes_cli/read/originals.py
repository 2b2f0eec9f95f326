"""The checkpoints that a bank was packed from, which nothing that comes out of it may replace."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePath

from randes_cli.errors import UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.records import BaseRecord, TaskRecord
from randes_cli.limits import StrPath

#: What a file or folder is, by whatever name: its device and inode.
Identity = tuple[int, int]


class Originals:
    """Recorded sources of a bank's tasks and of its base, where they lie here."""

    def __init__(self, bank: BankFile, base: StrPath | None = None) -> None:
        self._bank, self._given = bank, base

    def refuse(self, path: Path) -> None:
        """Refuse to replace a file of the checkpoint that a task, or the base, was packed from.

        Also with ``--force``: what comes back is another. New files may lie beside it.
        """
        if not path.exists():
            return
        places = filter(None, map(_identity, (path, path.parent)))
        name = next((self._known[place] for place in places if place in self._known), None)
        if name is not None:
            raise UsageError(
                f"{path}: exists, and is what {name} was packed from: name another place with -o "
                "(it is not replaced, also not with --force)"
            )

    @cached_property
    def _known(self) -> dict[Identity, str]:
        """Whose every file is, and every folder in which files of checkpoints lie."""
        return {
            found: name
            for name, source in self._sources()
            for place in (source, *(source / part for part in self._parts))
            if (found := _identity(place)) is not None
        }

    def _sources(self) -> Iterator[tuple[str, Path]]:
        """Each source with its name; that of a bank elsewhere names nothing here."""
        manifest, home = self._bank.manifest, self._bank.path
        if self._given is not None:
            yield "the base", Path(self._given)
        if isinstance(home, Path):
            recorded = [("the base", manifest.base.source)]
            recorded += [(task.name, task.source) for task in manifest.tasks]
            yield from ((name, home.parent / source) for name, source in recorded if source)

    @cached_property
    def _parts(self) -> set[PurePath]:
        """Folders in a model's folder that hold its components, or side files."""
        manifest = self._bank.manifest
        records: list[BaseRecord | TaskRecord] = [manifest.base, *manifest.tasks]
        inside = (name for r in records for name in (*r.layout.values(), *r.files))
        return {PurePath(name).parent for name in inside} - {PurePath()}


def _identity(path: Path) -> Identity | None:
    """What a path leads to; None where that is nothing, or nothing that one may see."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
