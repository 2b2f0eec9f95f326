"""Puts to the stores of Google and Azure that count only where what must be there is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from randes_cli.files.location import AZURE, GOOGLE, RemotePath, Version
from randes_cli.files.stores.store import (
    Unmet,
    forget,
    look_up,
    reach,
    status_of,
    store_errors,
    version,
)

#: Bytes of one part of an upload to Google's store: a multiple of 2^18.
_PART = 50 * 2**20
_BYTES = "application/octet-stream"
#: Bytes that are compared at a time.
_COMPARED = 2**24


def put(
    here: Path,
    path: RemotePath,
    wanted: Version | None,
    sent: Callable[[int], None],
    *,
    force: bool,
) -> None:
    """`upload` to a store other than S3. Raises Unmet where another was first.

    It is looked at before, so that nothing is sent in vain; the put itself is conditional too
    where the store knows marks by which to say what must be there.
    """
    if not force or wanted is not None:
        found = look_up(path)
        if (None if found is None else version(found)) != wanted:
            raise Unmet(f"{path}: not as it must be for this put")
    filesystem, inside = reach(path)
    marks = {} if wanted is None else dict(wanted[1])
    mode = "create" if wanted is None and not force else "overwrite"
    with store_errors(path):
        try:
            _put(filesystem, here, inside, path.scheme, marks, mode, _telling(sent))
        except Exception as error:
            refused = isinstance(error, FileExistsError) or status_of(error) == 412
            if not refused:
                raise
            if not _is_there(here, path):  # else the answer was lost, not the put
                raise Unmet(f"{path}: the store refused the put") from error
        finally:
            forget(filesystem, inside)


def _put(
    filesystem: Any,
    here: Path,
    inside: str,
    scheme: str,
    marks: Mapping[str, str],
    mode: str,
    told: Any,
) -> None:
    generation, tag = marks.get("generation"), marks.get("etag")
    if scheme in GOOGLE and generation is not None:
        _replace_at_google(filesystem, here, inside, generation, told)
    elif scheme in AZURE and tag is not None:
        from azure.core import MatchConditions

        same = {"etag": tag, "match_condition": MatchConditions.IfNotModified}
        filesystem.put_file(str(here), inside, overwrite=True, callback=told, **same)
    else:
        filesystem.put_file(str(here), inside, callback=told, mode=mode)


def _replace_at_google(
    filesystem: Any, here: Path, inside: str, generation: str, told: Any
) -> None:
    """`put_file`, which knows no generation to replace: parts, of which the last is refused."""
    from fsspec.asyn import sync
    from gcsfs.core import upload_chunk

    bucket, key, _ = filesystem.split_path(inside)
    root, size = filesystem.base.partition("/storage/")[0], here.stat().st_size
    headers, _ = filesystem.call(
        "POST",
        f"{root}/upload/storage/v1/b/{quote(bucket, '')}/o",
        name=key,
        uploadType="resumable",
        ifGenerationMatch=generation,
        json={"name": key},
        headers={"X-Upload-Content-Type": _BYTES},
    )
    with here.open("rb") as file:
        for start in range(0, size, _PART):
            data = file.read(_PART)
            place = headers["Location"]
            sync(filesystem.loop, upload_chunk, filesystem, place, data, start, size, _BYTES)
            told.absolute_update(start + len(data))


def _is_there(here: Path, path: RemotePath) -> bool:
    """Whether the store has these very bytes. The last ones tell most: they are digests."""
    found = look_up(path)
    size = here.stat().st_size
    if found is None or found.get("size") != size:
        return False
    filesystem, inside = reach(path)
    starts = range(0, size, _COMPARED)
    with here.open("rb") as file:
        for start in reversed(starts):
            file.seek(start)
            ours = file.read(_COMPARED)
            if filesystem.cat_file(inside, start=start, end=start + len(ours)) != ours:
                return False
    return True


def _telling(sent: Callable[[int], None]) -> Any:
    """What fsspec tells of its progress with, as bytes since the last time."""
    from fsspec.callbacks import Callback

    class Telling(Callback):  # type: ignore[misc]
        told = 0

        def call(self, *_: object, **__: object) -> None:
            more, self.told = self.value - self.told, self.value
            sent(more)

    return Telling()
