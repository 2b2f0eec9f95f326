"""The commit of a file that was made here and goes to a store: visible whole, or not at all.

S3 is told what must be there for the upload to count, so that of two writers one is refused.
Other stores are asked just before, and the later of two writers wins.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from randes_cli.errors import BankLocked, MissingError, RandesError, UsageError
from randes_cli.files.guard import edited_version
from randes_cli.files.location import OBJECT_STORES, WEB, RemotePath, Version
from randes_cli.files.store import look_up, reach, store_errors, version
from randes_cli.workers import Progress, no_progress

_S3 = ("s3", "s3a")
#: Bytes of one part (S3 takes 10,000 of them), and parts under way, and in memory, at a time.
_PART, _MOST_PARTS, _AT_ONCE = 2**24, 9000, 4
#: What an upload is called in the object's own description, so that it knows itself again.
_OURS = "randes-upload"


def passing_place() -> Path:
    """Where temporary files go. Raises MissingError where the user names a place that is not."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        chosen = os.environ.get(name)
        if chosen:
            if not Path(chosen).is_dir():
                raise MissingError(f"{chosen}: no such folder, and {name} names it")
            return Path(chosen)
    return Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())


def check_writable(path: RemotePath) -> None:
    """Refuse an address at which no object appears whole."""
    if path.scheme in WEB or path.scheme not in OBJECT_STORES:
        raise UsageError(
            f"{path}: randes writes to object stores (s3://, gs://, az://) and here, not to "
            f"{path.scheme}://"
        )


def check_upload(path: RemotePath, *, force: bool) -> None:
    """Refuse an output that exists (unless `force`), or that no whole object can become."""
    check_writable(path)
    found = look_up(path)
    if found is None:
        return
    if found.get("type") == "directory":
        raise UsageError(f"{path}: is a folder; name a file")
    if not force:
        raise UsageError(f"{path}: exists (say --force to replace it)")


def upload(
    here: Path,
    path: RemotePath,
    *,
    force: bool,
    progress: Progress = no_progress,
    total: int | None = None,
) -> None:
    """Make a file the object at an address, in one step that readers see.

    An edit replaces what it has read and nothing else; without `force` nothing may be there.
    `total` bytes go up with this file and others (None: it is alone).
    Raises BankLocked where another was first, UsageError, HubError.
    """
    wanted, size = edited_version(path), here.stat().st_size

    def sent(count: int) -> None:
        progress("uploading", count, total or size)

    if path.scheme in _S3:
        _to_s3(here, path, wanted, sent, force=force)
        return
    found = look_up(path)
    if wanted is not None and (found is None or version(found) != wanted):
        raise _overtaken(path)
    if wanted is None and found is not None and not force:
        raise UsageError(f"{path}: exists (say --force to replace it)")
    filesystem, inside = reach(path)
    with store_errors(path):
        filesystem.put_file(str(here), inside, callback=_telling(sent))
        filesystem.invalidate_cache(inside)


def _overtaken(path: RemotePath) -> BankLocked:
    return BankLocked(
        f"{path}: another writer replaced it meanwhile, so nothing was written; say it again"
    )


def _telling(sent: Callable[[int], None]) -> Any:
    """What fsspec tells of its progress with, as bytes since the last time."""
    from fsspec.callbacks import Callback

    class Telling(Callback):  # type: ignore[misc]
        told = 0

        def call(self, *_: object, **__: object) -> None:
            more, self.told = self.value - self.told, self.value
            sent(more)

    return Telling()


def _to_s3(
    here: Path,
    path: RemotePath,
    wanted: Version | None,
    sent: Callable[[int], None],
    *,
    force: bool,
) -> None:
    filesystem, inside = reach(path)
    bucket, key, _ = filesystem.split_path(inside)
    ours = os.urandom(16).hex()
    condition = {} if force else {"IfNoneMatch": "*"}
    if wanted is not None:
        tag = dict(wanted[1]).get("ETag")
        condition = {"IfMatch": tag} if tag else {}

    def call(method: str, **words: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = filesystem.call_s3(method, Bucket=bucket, Key=key, **words)
        return found

    try:
        with store_errors(path):
            _send(here, call, {"Metadata": {_OURS: ours}}, condition, sent)
    except RandesError as error:
        if _is_ours(path, call, ours):  # the answer was lost, not the upload
            return
        raise _meaning(error, path, edits=wanted is not None) from error
    finally:
        filesystem.invalidate_cache(inside)


def _send(
    here: Path,
    call: Callable[..., Mapping[str, Any]],
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
    begun = call("create_multipart_upload", **about)["UploadId"]

    def send(number: int) -> dict[str, Any]:
        with here.open("rb") as file:
            file.seek((number - 1) * part)
            data = file.read(part)
        found = call("upload_part", UploadId=begun, PartNumber=number, Body=data)
        sent(len(data))
        return {"PartNumber": number, "ETag": found["ETag"]}

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            parts = list(pool.map(send, range(1, -(-size // part) + 1)))
        whole = {"Parts": parts}
        call("complete_multipart_upload", UploadId=begun, MultipartUpload=whole, **condition)
    except BaseException:
        _abort(call, begun)
        raise


def unfinished(folder: RemotePath) -> list[tuple[RemotePath, str, datetime | None]]:
    """Uploads in parts below a folder of S3 that were begun and not ended: ids, and when.

    A process that is killed leaves some, which no reader sees and the store charges for. None
    where the store does not say (work-alikes, or no right to ask).
    """
    if folder.scheme not in _S3:
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
    filesystem, inside = reach(path)
    bucket, key, _ = filesystem.split_path(inside)

    def call(method: str, **words: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = filesystem.call_s3(method, Bucket=bucket, Key=key, **words)
        return found

    _abort(call, begun)


def _abort(call: Callable[..., Mapping[str, Any]], begun: str) -> None:
    """Let the store forget the parts of an upload, which else it keeps and charges for."""
    try:
        call("abort_multipart_upload", UploadId=begun)
    except Exception:  # what went wrong before is what to say
        return


def _is_ours(path: RemotePath, call: Callable[..., Mapping[str, Any]], ours: str) -> bool:
    """Whether what is there now is what was sent."""
    try:
        with store_errors(path):
            found = call("head_object").get("Metadata") or {}
    except RandesError:
        return False
    return bool(found.get(_OURS) == ours)


def _meaning(error: RandesError, path: RemotePath, *, edits: bool) -> RandesError:
    """What a refused condition says: another writer was first."""
    cause = error.__cause__
    codes = {
        str(getattr(one, "response", {}).get("Error", {}).get("Code", ""))
        for one in (cause, cause.__cause__ if cause else None)
        if one is not None
    }
    if not codes & {"PreconditionFailed", "ConditionalRequestConflict", "412"}:
        return error if not (edits and "NoSuchKey" in codes) else _overtaken(path)
    if edits:
        return _overtaken(path)
    return UsageError(f"{path}: exists (say --force to replace it)")
