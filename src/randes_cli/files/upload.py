"""The commit of a file that was made here and goes to a store: visible whole, or not at all.

The store is told what must be there for the upload to count, so that of two writers one is refused.
"""

from __future__ import annotations

import os
from pathlib import Path

from randes_cli.errors import BankLocked, MissingError, UsageError
from randes_cli.files.local.guard import edited_version
from randes_cli.files.location import OBJECT_STORES, S3, RemotePath
from randes_cli.files.stores.puts import put
from randes_cli.files.stores.store import Unmet, look_up
from randes_cli.workers import Progress, no_progress


def passing_place() -> Path:
    """Where temporary files go. Raises MissingError where the user names a place that is not."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        chosen = os.environ.get(name)
        if chosen:
            if not Path(chosen).is_dir():
                raise MissingError(f"{chosen}: no such folder, and {name} names it")
            return Path(chosen)
    if Path("/tmp").is_dir():
        return Path("/tmp")
    import tempfile

    return Path(tempfile.gettempdir())


def check_writable(path: RemotePath) -> None:
    """Refuse an address at which no object appears whole."""
    if path.scheme not in OBJECT_STORES:
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

    try:
        if path.scheme in S3:
            from randes_cli.files.stores.s3 import put_to_s3

            put_to_s3(here, path, wanted, sent, force=force)
        else:
            put(here, path, wanted, sent, force=force)
    except Unmet:
        if wanted is None:
            raise UsageError(f"{path}: exists (say --force to replace it)") from None
        raise BankLocked(
            f"{path}: another writer replaced it meanwhile, so nothing was written; say it again"
        ) from None
