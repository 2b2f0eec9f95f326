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

from randes_cli.errors import BankLocked
from randes_cli.files.atomic import wrap_os_error


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


@contextlib.contextmanager
def bank_lock(bank: Path, *, wait: float) -> Iterator[None]:
    """Hold the write lock of a bank, waiting up to `wait` seconds.

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
        yield
    finally:
        if lock.is_locked:
            inode = inode or _inode(path)
            try:
                _unlink(path, inode)
            finally:  # again, for the one signal that may have come between
                _unlink(path, inode)
                lock.release()
