"""Checkpoints and banks by what the user calls them: a path here, an address, an id of the Hub."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from randes_cli.errors import MismatchError, RandesError, UsageError
from randes_cli.files.bank.file import BankFile, is_bank
from randes_cli.files.checkpoint.checkpoint import DEFAULT_OPTIONS, Checkpoint, open_checkpoint
from randes_cli.files.hub.ref import SCHEME, parse_ref
from randes_cli.files.kinds import SUFFIXES
from randes_cli.files.local.system import resolved
from randes_cli.files.location import Place, RemotePath, as_place
from randes_cli.files.weight_names import PICKLES
from randes_cli.limits import StrPath, as_source
from randes_cli.specs import OpenOptions

if TYPE_CHECKING:  # loaded where something is on the Hub
    from randes_cli.files.hub.repository import HubModel


#: Endings of files that are named as checkpoints.
_FILES = (*SUFFIXES, *PICKLES, ".json")


def on_hub(text: str) -> bool:
    """Whether a text names a model on the Hub. Raises UsageError as `parse_ref` does."""
    return parse_ref(text) is not None


def open_bank(text: str, *, lenient: bool = False) -> BankFile:
    """Open a bank; one on the Hub or in a store stays there and is read by range.

    `lenient` as in `BankFile`.
    """
    ref = parse_ref(text)
    if ref is None:
        return BankFile(as_place(text), lenient=lenient)
    from randes_cli.files.hub.repository import open_remote_bank

    return open_remote_bank(ref, lenient=lenient)


def require_same(bank: StrPath, fingerprint: bytes, meanwhile: str) -> None:
    """Raise MismatchError where a bank is another than that with this fingerprint."""
    with open_bank(as_source(bank)) as file:
        if file.store.fingerprint != fingerprint:
            raise MismatchError(f"{bank}: changed while {meanwhile}; say it again")


def names_bank(source: StrPath) -> bool:
    """Whether what a caller named is a bank, sound or not. Raises HubError."""
    text = as_source(source)
    ref = parse_ref(text)
    if ref is None:
        return is_bank(as_place(text))
    from randes_cli.files.hub.repository import has_bank

    return has_bank(ref)


def local_bank(text: str) -> Place:
    """Where a bank lies that is read many times over; one on the Hub is fetched for it."""
    ref = parse_ref(text)
    if ref is None:
        return as_place(text)
    from randes_cli.files.hub.repository import fetch, open_hub_bank

    return fetch(open_hub_bank(ref))


def own_bank(text: str) -> Place:
    """Where a bank lies that is to be edited. Raises UsageError for one on the Hub."""
    if on_hub(text):
        raise UsageError(f"{text}: a bank on the Hub is not edited; download it and push it again")
    return as_place(text)


def _apart(sources: Iterable[str]) -> dict[str, set[str]]:
    """Of sources that are folders: their sub-folders that others are, or lie in."""
    owners: dict[PurePath, list[str]] = {}
    for text in sources:
        with suppress(RandesError):  # what is wrong with it is said where it is opened
            owners.setdefault(_folder_of(text), []).append(text)
    made: dict[str, set[str]] = {}
    for folder in owners:
        for above in folder.parents:
            for text in owners.get(above, ()):
                made.setdefault(text, set()).add(folder.relative_to(above).as_posix())
    return made


def _folder_of(text: str) -> PurePath:
    """The folder that a source is, or that its file is in, whatever it is called."""
    ref = parse_ref(text)
    place = as_place(text) if ref is None else None
    if isinstance(place, Path):
        whole = resolved(place)
        return whole if whole.is_dir() else whole.parent
    where = PurePosixPath(str(place))
    if ref is not None:
        where = PurePosixPath(SCHEME, f"{ref.repo}@{ref.revision}", ref.path)
    return where.parent if where.suffix in _FILES else where


class Sources:
    """The checkpoints of one job. A model of the Hub is resolved once, to one commit.

    Of those named `together` none is a part of another whose folder it lies in.
    """

    def __init__(
        self, options: OpenOptions = DEFAULT_OPTIONS, together: Iterable[str] = ()
    ) -> None:
        self._given, self._apart = options, _apart(together)
        self._models: dict[str, HubModel] = {}

    def _options(self, text: str) -> OpenOptions:
        return replace(self._given, apart=frozenset(self._apart.get(text, ())))

    def _model(self, text: str) -> HubModel | None:
        ref = parse_ref(text)
        if ref is not None and text not in self._models:
            from randes_cli.files.hub.repository import open_hub

            self._models[text] = open_hub(ref, self._options(text))
        return self._models.get(text)

    def look(self, text: str) -> Checkpoint:
        """Open a checkpoint without moving its data here; see `remote_checkpoint`."""
        model = self._model(text)
        if model is None:
            return self._open(text)
        from randes_cli.files.hub.repository import remote_checkpoint

        return remote_checkpoint(model, self._options(text))

    def open(self, text: str) -> Checkpoint:
        """Open a checkpoint, from the Hub after it was fetched. Its `source` names the commit.

        One in a store is read there, by range.
        """
        model = self._model(text)
        if model is None:
            return self._open(text)
        from randes_cli.files.hub.repository import fetch

        path, options, left_out = fetch(model), self._options(text), model.found.left_out
        return open_checkpoint(str(path), options, called=model.source, left_out=left_out)

    def _open(self, text: str) -> Checkpoint:
        place = as_place(text)
        if isinstance(place, RemotePath):
            from randes_cli.files.stored import open_stored

            return open_stored(place, self._options(text))
        return open_checkpoint(text if place == Path(text) else str(place), self._options(text))

    def bytes_to_download(self) -> int:
        """Bytes that `open` would move of the models that were looked at."""
        return sum(model.bytes_to_download() for model in self._models.values())
