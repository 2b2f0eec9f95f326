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
        said = path.read_text("utf-8", "replace")[:200]
    except OSError:
        return "another process"
    return "".join(c if c.isprintable() else " " for c in said).strip() or "another process"


@contextlib.contextmanager
def bank_lock(bank: Path, *, wait: float) -> Iterator[None]:
    """Hold the write lock of a bank, waiting up to `wait` seconds.

    The lock is a hidden file beside the bank, which goes with the lock. Raises BankLocked
    naming the holder.
    """
    path = bank.parent / f".{bank.name}.lock"
    lock = FileLock(path, timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        raise BankLocked(
            f"{bank}: locked by {_holder(path)}; try again, or say --wait SECONDS"
        ) from None
    except OSError as error:
        raise wrap_os_error(error, path, "locking the bank") from error
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        command = " ".join(Path(word).name for word in sys.argv[:2])
        with contextlib.suppress(OSError):
            path.write_text(f"process {os.getpid()} on {platform.node()} ({command}) since {since}")
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
