"""The checkpoints that a bank was packed from, which nothing that comes out of it may replace."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePath
from typing import TypeAlias

from randes_cli.errors import UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.records import BaseRecord, TaskRecord
from randes_cli.files.location import Place, RemotePath, as_place, recorded_place
from randes_cli.files.stores.store import look_up
from randes_cli.limits import StrPath, as_source

#: What a file or folder is, by whatever name: its device and inode, or its address.
Identity: TypeAlias = tuple[int, int] | RemotePath


class Originals:
    """Recorded sources of a bank's tasks and of its base, where they lie here or in a store."""

    def __init__(self, bank: BankFile, base: StrPath | None = None) -> None:
        self._bank, self._given = bank, base

    def refuse(self, path: Place) -> None:
        """Refuse to replace a file of the checkpoint that a task, or the base, was packed from.

        Also with ``--force``: what comes back is another. New files may lie beside it.
        """
        places: tuple[Place, ...] = path, path.parent
        found = [what for place in places if (what := _identity(place)) is not None]
        name = next((self._known[what] for what in found if what in self._known), None)
        if name is not None and _is_there(path):
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
            for place in (source, *(_below(source, part) for part in self._parts))
            if (found := _identity(place)) is not None
        }

    def _sources(self) -> Iterator[tuple[str, Place]]:
        """Each source with its name: an address, or a place beside the bank."""
        if self._given is not None:
            yield "the base", as_place(as_source(self._given))
        manifest, home = self._bank.manifest, self._bank.path.parent
        recorded = [("the base", manifest.base.source)]
        recorded += [(task.name, task.source) for task in manifest.tasks]
        for name, source in recorded:
            if source:
                yield name, recorded_place(source) or _below(home, PurePath(source))

    @cached_property
    def _parts(self) -> set[PurePath]:
        """Folders in a model's folder that hold its components, or side files."""
        manifest = self._bank.manifest
        records: list[BaseRecord | TaskRecord] = [manifest.base, *manifest.tasks]
        inside = (name for r in records for name in (*r.layout.values(), *r.files))
        return {PurePath(name).parent for name in inside} - {PurePath()}


def _below(folder: Place, part: PurePath) -> Place:
    for name in part.parts:
        folder = folder / name
    return folder


def _is_there(path: Place) -> bool:
    return look_up(path) is not None if isinstance(path, RemotePath) else path.exists()


def _identity(path: Place) -> Identity | None:
    """What a path leads to; None where that is nothing, or nothing that one may see."""
    if isinstance(path, RemotePath):
        return path
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
