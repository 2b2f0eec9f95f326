"""Uploads to S3: one put, or parts and a call that makes an object of them.

The last call names what must be there for it to count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from randes_cli.errors import HubError, RandesError
from randes_cli.files.location import S3, RemotePath, Version
from randes_cli.files.stores.segments import Segment
from randes_cli.files.stores.store import Unmet, forget, reach, store_errors

#: Bytes of one part (S3 takes 10,000 of them), and parts under way, and in memory, at a time.
_PART, _MOST_PARTS, _AT_ONCE = 2**24, 9000, 4
#: Bytes of the smallest part that is not the last, and of a part that is copied, about.
_LEAST, _COPIED = 5 * 2**20, 2**30
#: What an upload is called in the object's own description, so that it knows itself again.
_OURS = "randes-upload"
#: What S3 answers where the condition of a call is not met.
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict", "412"}


class _Range(NamedTuple):
    """Bytes of an object, from the first to before the last."""

    place: RemotePath
    start: int
    stop: int


#: Makes a call about one object, by its name in S3's own API.
Call: TypeAlias = Callable[..., Mapping[str, Any]]


def _caller(path: RemotePath) -> Call:
    filesystem, inside = reach(path)
    bucket, key, _ = filesystem.split_path(inside)

    def call(method: str, **words: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = filesystem.call_s3(method, Bucket=bucket, Key=key, **words)
        return found

    return call


def put_to_s3(
    here: Path,
    path: RemotePath,
    wanted: Version | None,
    sent: Callable[[int], None],
    *,
    force: bool,
) -> None:
    """`upload` to S3. Raises Unmet where another was first."""
    filesystem, inside = reach(path)
    call, ours = _caller(path), os.urandom(16).hex()
    condition = {} if force else {"IfNoneMatch": "*"}
    if wanted is not None:
        tag = dict(wanted[1]).get("ETag")
        condition = {"IfMatch": tag} if tag else {}
    try:
        with store_errors(path):
            _send(here, call, {"Metadata": {_OURS: ours}}, condition, sent)
    except RandesError as error:
        if _is_ours(path, call, ours):  # the answer was lost, not the upload
            return
        if _codes(error) & (_UNMET if wanted is None else {*_UNMET, "NoSuchKey"}):
            raise Unmet(str(error)) from error
        raise
    finally:
        forget(filesystem, inside)


def _codes(error: RandesError) -> set[str]:
    """What S3 called an error."""
    cause = error.__cause__
    causes = (cause, cause.__cause__ if cause else None)
    answers = (getattr(one, "response", None) or {} for one in causes)
    return {str(answer.get("Error", {}).get("Code", "")) for answer in answers}


def _send(
    here: Path,
    call: Call,
    about: Mapping[str, Any],
    condition: Mapping[str, str],
    sent: Callable[[int], None],
) -> None:
    """Upload a file: one put, or parts and then the call that makes an object of them."""
    size = here.stat().st_size
    part = max(_PART, -(-size // _MOST_PARTS))
    if size <= part:
        call("put_object", Body=here.read_bytes(), **about, **condition)
        sent(size)
        return

    def send(number: int) -> dict[str, Any]:
        with here.open("rb") as file:
            file.seek((number - 1) * part)
            data = file.read(part)
        found = call("upload_part", UploadId=begun, PartNumber=number, Body=data)
        sent(len(data))
        return {"PartNumber": number, "ETag": found["ETag"]}

    with _in_parts(call, about, condition) as (begun, parts, pool):
        parts.extend(pool.map(send, range(1, -(-size // part) + 1)))


@contextmanager
def _in_parts(
    call: Call, about: Mapping[str, Any], condition: Mapping[str, str]
) -> Iterator[tuple[str, list[dict[str, Any]], ThreadPoolExecutor]]:
    """An upload by its id, which becomes an object of the parts that the block lists."""
    begun, parts = call("create_multipart_upload", **about)["UploadId"], list[dict[str, Any]]()
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield begun, parts, pool
        whole = {"Parts": parts}
        call("complete_multipart_upload", UploadId=begun, MultipartUpload=whole, **condition)
    except BaseException:
        _abort(call, begun)
        raise


def join_at_s3(path: RemotePath, segments: Sequence[Segment]) -> None:
    """Make one object of others that are there: S3 copies, and little of them comes here."""
    call, rest = _caller(path), enumerate(_parts(segments), 1)
    with store_errors(path), _in_parts(call, {}, {}) as (begun, parts, pool):
        while some := list(islice(rest, _AT_ONCE)):
            parts.extend(pool.map(partial(_part, call, begun), some))
    filesystem, inside = reach(path)
    forget(filesystem, inside)


def _part(call: Call, begun: str, numbered: tuple[int, bytes | _Range]) -> dict[str, Any]:
    number, part = numbered
    about = {"UploadId": begun, "PartNumber": number}
    if isinstance(part, bytes):
        return {"PartNumber": number, "ETag": call("upload_part", Body=part, **about)["ETag"]}
    filesystem, inside = reach(part.place)
    bucket, key, _ = filesystem.split_path(inside)
    place, span = {"Bucket": bucket, "Key": key}, f"bytes={part.start}-{part.stop - 1}"
    found = call("upload_part_copy", CopySource=place, CopySourceRange=span, **about)
    return {"PartNumber": number, "ETag": found["CopyPartResult"]["ETag"]}


def _parts(segments: Sequence[Segment]) -> Iterator[bytes | _Range]:
    """Parts that S3 takes: what is too small for one comes here, and goes with what is beside."""
    held = b""
    for segment in segments:
        if isinstance(segment, bytes):
            held += segment
            continue
        place, size = segment.place, segment.size
        start = min(size, _LEAST - len(held)) if 0 < len(held) < _LEAST else 0
        if size - start < _LEAST:
            start = size
        held += _read(place, start) if start else b""
        if len(held) >= _LEAST:
            yield held
            held = b""
        if start == size:
            continue
        count = -(-(size - start) // _COPIED)
        ends = [start + (size - start) * number // count for number in range(count + 1)]
        yield from (_Range(place, *pair) for pair in pairwise(ends))
    if held:
        yield held


def _read(place: RemotePath, stop: int) -> bytes:
    filesystem, inside = reach(place)
    found = bytes(filesystem.cat_file(inside, start=0, end=stop))
    if len(found) != stop:
        raise HubError(f"{place}: a worker's part of a shard ends early")
    return found


def unfinished(folder: RemotePath) -> list[tuple[RemotePath, str, datetime | None]]:
    """`begun_parts` of S3."""
    if folder.scheme not in S3:
        return []
    filesystem, inside = reach(folder)
    bucket, prefix, _ = filesystem.split_path(inside)
    try:
        with store_errors(folder):
            told = filesystem.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    except RandesError:
        return []
    root = RemotePath(f"{folder.scheme}://{bucket}")
    return [
        (RemotePath(f"{root.url}/{one['Key']}"), str(one["UploadId"]), one.get("Initiated"))
        for one in told.get("Uploads") or ()
    ]


def end_upload(path: RemotePath, begun: str) -> None:
    """Have a store forget the parts of an upload."""
    _abort(_caller(path), begun)


def _abort(call: Call, begun: str) -> None:
    """Let the store forget the parts of an upload, which else it keeps and charges for."""
    try:
        call("abort_multipart_upload", UploadId=begun)
    except Exception:  # what went wrong before is what to say
        return


def _is_ours(path: RemotePath, call: Call, ours: str) -> bool:
    """Whether what is there now is what was sent."""
    try:
        with store_errors(path):
            found = call("head_object").get("Metadata") or {}
    except RandesError:
        return False
    return bool(found.get(_OURS) == ours)
