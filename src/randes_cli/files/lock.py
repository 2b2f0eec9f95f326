"""The write lock of a bank: one editor at a time, and who it is. Readers never wait."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

from randes_cli.errors import BankLocked, UsageError
from randes_cli.files.disk import wrap_os_error
from randes_cli.files.guard import holding, is_held


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            said = file.read(300).decode("utf-8", "replace")
    except OSError:
        return "another process"
    return "".join(c if c.isprintable() else " " for c in said).strip() or "another process"


def _sign(path: Path) -> None:
    """Say in the lock file who holds it; without this the lock holds all the same."""
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = " ".join(Path(word).name for word in sys.argv[:2])
    said = f"process {os.getpid()} on {platform.node()} ({command}) since {since}"
    with contextlib.suppress(OSError):
        path.write_bytes(said.encode("utf-8", "replace"))


def _inode(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_ino
    return None


def _unlink(path: Path, inode: int | None) -> None:
    """Take a lock file's name away, unless it is by now that of the next holder's file."""
    if _inode(path) == inode:
        with contextlib.suppress(OSError):
            path.unlink()


def edited_bank(path: Path) -> Path:
    """The file that an edit of a bank replaces: a link's target, for that is the bank.

    Raises UsageError for a link into the Hub's cache, whose files others share.
    """
    if not path.is_symlink():
        return path
    target = path.resolve()
    if target.parent.name == "blobs" and (target.parent.parent / "snapshots").is_dir():
        raise UsageError(f"{path}: a link into the Hub's cache; copy the bank out of it first")
    return target


@contextlib.contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Hold the write lock of a name that a file is to have, unless this command holds it."""
    if is_held(path):
        yield
        return
    with bank_lock(path, wait=0.0, edits=False):
        yield


@contextlib.contextmanager
def bank_lock(bank: Path, *, wait: float, edits: bool = True) -> Iterator[None]:
    """Hold the write lock of a bank, waiting up to `wait` seconds.

    With `edits` the bank is read and then replaced, else a file is written in its place.

    The lock is a hidden file beside the bank. It is unlinked while it is still held: whoever
    waited for it finds that its file has no name any more and asks for the new one.
    Raises BankLocked naming the holder.
    """
    path = bank.parent / f".{bank.name}.lock"
    inode = None
    lock = FileLock(path, timeout=max(0.0, wait))
    try:
        try:
            lock.acquire()
        except Timeout:
            raise BankLocked(
                f"{bank}: locked by {_holder(path)}; try again, or say --wait SECONDS"
            ) from None
        except OSError as error:
            raise wrap_os_error(error, bank, "locking the bank") from error
        inode = _inode(path)
        _sign(path)
        with holding(bank, edits=edits):
            yield
    finally:
        if lock.is_locked:
            inode = inode or _inode(path)
            try:
                _unlink(path, inode)
            finally:  # again, for the one signal that may have come between
                _unlink(path, inode)
                lock.release()
