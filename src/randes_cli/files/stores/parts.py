"""One object of parts that several workers send: S3 copies, Google composes, Azure takes blocks.

None of the parts comes back here. On Azure, blocks belong to the name that they were sent to, and a
shard's is known last: they become an object under a passing name, which the store then copies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from randes_cli.errors import HubError, RandesError
from randes_cli.files.hidden import TEMPORARY
from randes_cli.files.location import AZURE, GOOGLE, S3, RemotePath
from randes_cli.files.stores.s3 import end_upload, join_at_s3, unfinished
from randes_cli.files.stores.segments import Part, Segment, Sent
from randes_cli.files.stores.store import forget, reach, store_errors
from randes_cli.files.upload import upload

#: Stores that make one object of several.
JOINING = (*S3, *GOOGLE, *AZURE)
#: Objects that Google's store composes in one call.
_COMPOSED = 32
#: Bytes of a block at Azure's, of which a blob has 50,000 at the most, and blocks under way.
_BLOCK, _AT_ONCE = 2**24, 4
#: Seconds between two looks at a copy that a store has begun.
_LOOK = 0.5


def send_part(here: Path, folder: RemotePath, part: Part) -> RemotePath:
    """Send a part of an object in a folder, under a passing name: where it is."""
    if folder.scheme not in AZURE:
        there = folder / f".{part.into}.{part.start:x}{TEMPORARY}"
        upload(here, there, force=True)
        return there
    there = folder / f".{part.into}{TEMPORARY}"
    call, size = _caller(there), here.stat().st_size

    def send(number: int) -> None:
        with here.open("rb") as file:
            file.seek(number * _BLOCK)
            data = file.read(_BLOCK)
        call("stage_block", _block(part.start, number), data, length=len(data))

    with store_errors(there), ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(send, range(-(-size // _BLOCK))))
    return there


def join_parts(path: RemotePath, segments: Sequence[Segment]) -> None:
    """Make one object of parts that are there, and of bytes between them."""
    if path.scheme in S3:
        join_at_s3(path, segments)
        return
    with store_errors(path):
        (_compose if path.scheme in GOOGLE else _commit)(path, [one for one in segments if one])
    filesystem, inside = reach(path)
    forget(filesystem, inside)


def forget_part(path: RemotePath) -> None:
    """Remove a part that was sent, whether an object was made of it or not."""
    with suppress(RandesError), store_errors(path):
        if path.scheme in AZURE:  # blocks of no object yet: an empty one ends them
            _caller(path)("upload_blob", b"", overwrite=True)
        filesystem, inside = reach(path)
        filesystem.rm_file(inside)


def _compose(path: RemotePath, segments: Sequence[Segment]) -> None:
    """Google's store takes 32 objects at a time, and what came of them."""
    filesystem, inside = reach(path)
    passing, into = list[RemotePath](), os.urandom(8).hex()

    def passes() -> str:
        passing.append(path.with_name(f".{into}.{len(passing):x}{TEMPORARY}"))
        return str(reach(passing[-1])[1])

    try:
        names = list[str]()
        for segment in segments:
            names.append(passes() if isinstance(segment, bytes) else reach(segment.place)[1])
            if isinstance(segment, bytes):
                filesystem.pipe_file(names[-1], segment)
        while len(names) > _COMPOSED:
            groups = [names[n : n + _COMPOSED] for n in range(0, len(names), _COMPOSED)]
            names = [passes() for _ in groups]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(filesystem.merge, names, groups))
        filesystem.merge(inside, names)
    finally:
        for one in passing:
            forget_part(one)


def _commit(path: RemotePath, segments: Sequence[Segment]) -> None:
    """Azure's store makes an object of blocks where they are, and copies it."""
    from azure.storage.blob import BlobBlock

    there = next(one.place for one in segments if isinstance(one, Sent))
    call, blocks = _caller(there), list[str]()
    for number, segment in enumerate(segments):
        if isinstance(segment, bytes):
            blocks.append(_block(number, -1))
            call("stage_block", blocks[-1], segment, length=len(segment))
        else:
            count = -(-segment.size // _BLOCK)
            blocks += [_block(segment.start, n) for n in range(count)]
    call("commit_block_list", [BlobBlock(one) for one in blocks])
    filesystem, inside = reach(there)
    container, blob, _ = filesystem.split_path(inside)
    source = filesystem.service_client.get_blob_client(container, blob).url
    _copy(_caller(path), source, path)


def _copy(call: Callable[..., Any], source: str, path: RemotePath) -> None:
    """Have an object copied, and wait for it: within one account it is one step as a rule."""
    status = call("start_copy_from_url", source)["copy_status"]
    while status == "pending":
        time.sleep(_LOOK)
        status = call("get_blob_properties").copy.status
    if status != "success":
        raise HubError(f"{path}: the store gave up putting it together ({status}); say it again")


def _block(start: int, number: int) -> str:
    """The name of a block: all of one object are as long. Of none of a part, `number` is -1."""
    return f"{start:016x}{number + 1:08x}"


def _caller(path: RemotePath) -> Callable[..., Any]:
    """Makes a call about one blob, by its name in Azure's own client."""
    from fsspec.asyn import sync

    filesystem, inside = reach(path)
    container, blob, _ = filesystem.split_path(inside)

    def call(method: str, *values: object, **words: object) -> Any:
        async def made() -> Any:
            async with filesystem.service_client.get_blob_client(container, blob) as client:
                return await getattr(client, method)(*values, **words)

        return sync(filesystem.loop, made)

    return call


def begun_parts(folder: RemotePath) -> list[tuple[RemotePath, str, datetime | None]]:
    """Uploads below a folder that were begun and not ended: ids, and when (None: not told).

    A process that is killed leaves some, which no reader sees and the store charges for. None
    where the store does not say (work-alikes, or no right to ask).
    """
    if folder.scheme not in AZURE:
        return unfinished(folder)
    try:
        with store_errors(folder):
            return list(_uncommitted(folder))
    except RandesError:
        return []


def _uncommitted(folder: RemotePath) -> Iterator[tuple[RemotePath, str, datetime | None]]:
    """Names at Azure's that have blocks and no object."""
    from fsspec.asyn import sync

    filesystem, inside = reach(folder)
    container, prefix, _ = filesystem.split_path(inside)

    async def listed(*more: str) -> dict[str, Any]:
        async with filesystem.service_client.get_container_client(container) as client:
            found = client.list_blobs(name_starts_with=prefix, include=list(more))
            return {one.name: one async for one in found}

    whole = sync(filesystem.loop, listed)
    root = f"{folder.scheme}://{folder.url.partition('://')[2].partition('/')[0]}"
    for name, one in sync(filesystem.loop, listed, "uncommittedblobs").items():
        if name not in whole:
            yield RemotePath(f"{root}/{name}"), "blocks", one.last_modified


def end_parts(path: RemotePath, begun: str) -> None:
    """Have a store forget an upload that was begun."""
    if path.scheme in AZURE:
        forget_part(path)
    else:
        end_upload(path, begun)
