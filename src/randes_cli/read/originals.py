"""The checkpoints that a bank was packed from, which nothing that comes out of it may replace."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePath

from randes_cli.errors import UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.records import BaseRecord, TaskRecord
from randes_cli.files.location import Place, RemotePath, as_place, recorded_place
from randes_cli.files.store import look_up
from randes_cli.limits import StrPath, as_source

#: What a file or folder is, by whatever name: its device and inode.
Identity = tuple[int, int]


class Originals:
    """Recorded sources of a bank's tasks and of its base, where they lie here."""

    def __init__(self, bank: BankFile, base: StrPath | None = None) -> None:
        self._bank, self._given = bank, base

    def refuse(self, path: Place) -> None:
        """Refuse to replace a file of the checkpoint that a task, or the base, was packed from.

        Also with ``--force``: what comes back is another. New files may lie beside it.
        """
        name = self._original_far(path) if isinstance(path, RemotePath) else self._original(path)
        if name is not None:
            raise UsageError(
                f"{path}: exists, and is what {name} was packed from: name another place with -o "
                "(it is not replaced, also not with --force)"
            )

    def _original(self, path: Path) -> str | None:
        """Whose file it is, where it is one."""
        if not path.exists():
            return None
        places = filter(None, map(_identity, (path, path.parent)))
        return next((self._known[place] for place in places if place in self._known), None)

    def _original_far(self, path: RemotePath) -> str | None:
        """Whose file it is, of what lies in a store."""
        name = self._far.get(path) or self._far.get(path.parent)
        return name if name is not None and look_up(path) is not None else None

    @cached_property
    def _far(self) -> dict[RemotePath, str]:
        """Whose every file in a store is, and every folder in which files of checkpoints lie."""
        return {
            place: name
            for name, source in self._sources_far()
            for place in (source, *(_below(source, part) for part in self._parts))
        }

    def _sources_far(self) -> Iterator[tuple[str, RemotePath]]:
        """Each source that is in a store: as it was recorded, or in the bank's own folder."""
        home, given = self._bank.path, self._given
        places = [("the base", as_place(as_source(given)))] if given is not None else []
        for name, source in self._recorded():
            place: Place | None = recorded_place(source)
            if place is None and isinstance(home, RemotePath):
                place = _below(home.parent, PurePath(source))
            places += [] if place is None else [(name, place)]
        yield from ((name, place) for name, place in places if isinstance(place, RemotePath))

    def _recorded(self) -> list[tuple[str, str]]:
        manifest = self._bank.manifest
        recorded = [("the base", manifest.base.source)]
        recorded += [(task.name, task.source) for task in manifest.tasks]
        return [(name, source) for name, source in recorded if source]

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
        home = self._bank.path
        if self._given is not None:
            yield "the base", Path(self._given)
        if isinstance(home, Path):
            yield from ((name, home.parent / source) for name, source in self._recorded())

    @cached_property
    def _parts(self) -> set[PurePath]:
        """Folders in a model's folder that hold its components, or side files."""
        manifest = self._bank.manifest
        records: list[BaseRecord | TaskRecord] = [manifest.base, *manifest.tasks]
        inside = (name for r in records for name in (*r.layout.values(), *r.files))
        return {PurePath(name).parent for name in inside} - {PurePath()}


def _below(folder: RemotePath, part: PurePath) -> RemotePath:
    for name in part.parts:
        folder = folder / name
    return folder


def _identity(path: Path) -> Identity | None:
    """What a path leads to; None where that is nothing, or nothing that one may see."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
