"""Models in a store, by address: a weight file, an index of shards, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from randes_cli.errors import CheckpointError, MissingError
from randes_cli.files.checkpoint.checkpoint import DEFAULT_OPTIONS, Checkpoint
from randes_cli.files.elsewhere import Elsewhere, open_elsewhere
from randes_cli.files.header import parse_json
from randes_cli.files.hub.cache import stays_inside
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.location import RemotePath
from randes_cli.files.stores.store import forget, look_up, patiently, reach
from randes_cli.files.weight_file import open_weights
from randes_cli.files.weight_names import is_index, weight_map
from randes_cli.specs import OpenOptions
from randes_cli.workers import at_once

#: Files of one folder: more are not one model.
_MOST = 100_000


def open_stored(place: RemotePath, options: OpenOptions = DEFAULT_OPTIONS) -> Checkpoint:
    """Open a model in a store. Its tensors stay there, and are read by range.

    Raises MissingError, CheckpointError, HubError, UsageError.
    """
    info = look_up(place)
    if info is None:
        raise MissingError(f"{place}: not found")
    if info.get("type") == "directory":
        sizes = _listed(place)
        there = _files(place, "", sizes)
    else:
        folder, name = place.parent, place.name
        sizes = {name: int(info.get("size") or 0)}
        if is_index(name):
            sizes |= _beside(place)
        there = _files(folder, name, sizes, whole=place)
    return open_elsewhere(there, options, called=str(place))


def _files(
    root: RemotePath, path: str, sizes: dict[str, int], whole: RemotePath | None = None
) -> Elsewhere:
    """Files below a folder; `whole` is the address of `path` with its signature, if any."""

    def place(name: str) -> RemotePath:
        return whole if whole is not None and name == path else root / name

    return Elsewhere(
        str(root),
        path,
        sizes,
        lambda name, target: bring(place(name), target),
        lambda name: open_weights(place(name)),
    )


def bring(place: RemotePath, target: Path) -> None:
    """Copy a file of a store to a place here. Raises MissingError, HubError, NoSpace."""
    filesystem, inside = reach(place)

    def copy() -> None:
        source: IO[bytes]
        with filesystem.open(inside, "rb") as source, target.open("wb") as file:
            out, offset = OutputFile(file.fileno(), target), 0  # whose errors are not the store's
            while data := source.read(2**22):
                out.write_at(data, offset)
                offset += len(data)

    patiently(place, copy)


def _listed(place: RemotePath) -> dict[str, int]:
    """Bytes of the files of a folder, by their names in it."""
    filesystem, inside = reach(place)

    def find() -> dict[str, Any]:
        forget(filesystem, inside)
        found: dict[str, Any] = filesystem.find(inside, detail=True)
        return found

    found = patiently(place, find)
    if len(found) > _MOST:
        raise CheckpointError(f"{place}: {len(found)} files; name the folder of one model")
    start = f"{inside.rstrip('/')}/"
    names = {name.removeprefix(start): info for name, info in found.items()}
    return {name: int(info["size"] or 0) for name, info in names.items() if stays_inside(name)}


def _beside(index: RemotePath) -> dict[str, int]:
    """Bytes of the shards that an index names, of those that are there."""
    filesystem, inside = reach(index)
    data: bytes = patiently(index, lambda: filesystem.cat_file(inside))
    try:
        names = sorted(set(weight_map(parse_json(data), str(index)).values()))
    except ValueError as error:
        raise CheckpointError(f"{index}: {error}") from None
    found = at_once(lambda name: look_up(index.parent / name), names)
    pairs = zip(names, found, strict=True)
    return {name: int(info.get("size") or 0) for name, info in pairs if info is not None}
