"""The write lock of a bank: one editor at a time, and who it is. Readers never wait."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from randes_cli.errors import BankLocked, MissingError, UsageError
from randes_cli.files.hidden import lock_name
from randes_cli.files.local.disk import system_errors
from randes_cli.files.local.guard import holding, is_held
from randes_cli.files.local.system import FLAGS, NO_FOLLOW, let_go, resolved
from randes_cli.files.local.system import lock as lock_file
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.nearest import absent
from randes_cli.interrupts import unstoppable

#: What a file system that has no locks answers (network disks, most of them).
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
#: Seconds between two tries.
_PAUSE = 0.05


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            said = file.readline(300).decode("utf-8", "replace")
    except OSError:
        return "another process"
    return said.strip() or "another process"


def _signature() -> bytes:
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    command = " ".join(Path(word).name for word in sys.argv[:2]).replace("\n", " ")
    said = f"process {os.getpid()} on {platform.node()} ({command}) since {since}\n"
    return said.encode("utf-8", "replace")


class _Lock:
    """A file that is locked; where nothing can be, its being there is the lock ("soft").

    It is unlinked while it is still held: whoever waited for it finds that its file has no
    name any more and takes the new one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.soft = False
        self._fd = -1

    @unstoppable
    def take(self) -> bool:
        """Try once, or again where the file at hand has gone with its holder."""
        while (taken := self._try()) is None:
            pass
        return taken

    def _try(self) -> bool | None:
        fd, created = self._open()
        if fd < 0:
            return None
        try:
            if not self._locks(fd, created):
                return False
            if not self._is_named(fd):
                return None
            self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        with contextlib.suppress(OSError):  # without a signature it holds all the same
            os.write(self._fd, _signature())
        return True

    def _open(self) -> tuple[int, bool]:
        """The file (-1: it went just now), and whether it is new."""
        flags = os.O_RDWR | FLAGS | NO_FOLLOW
        with contextlib.suppress(FileExistsError):
            return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(self.path, flags), False
        return -1, False

    def _locks(self, fd: int, created: bool) -> bool:
        try:
            lock_file(fd, wait=False)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                if created:
                    os.unlink(self.path)
                raise
            self.soft = True
            return created
        return True

    def _is_named(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except OSError:
            return False

    @unstoppable
    def give_back(self) -> None:
        if self._fd < 0:
            return
        named, fd, self._fd = self._is_named(self._fd), self._fd, -1
        if self.soft:  # where there are no locks, an open file may not be unlinked either
            let_go(fd)
        if named:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        if not self.soft:
            let_go(fd)


def edited_bank(path: Place) -> Place:
    """The file that an edit of a bank replaces: a link's target, for that is the bank.

    Raises UsageError for a link into the Hub's cache, whose files others share.
    """
    if isinstance(path, RemotePath) or not os.path.islink(path):  # noqa: PTH114 - may be too long
        return path
    target = resolved(path)
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
def bank_lock(bank: Place, *, wait: float, edits: bool = True) -> Iterator[None]:
    """Hold the write lock of a bank, waiting up to `wait` seconds.

    With `edits` the bank is read and then replaced, else a file is written in its place.

    The lock is a hidden file beside the bank; a store has none, and tells at the commit whether
    another was first. Raises BankLocked naming the holder, MissingError for an edit of nothing.
    """
    if isinstance(bank, RemotePath):
        with holding(bank, edits=edits):
            yield
        return
    lock = _Lock(lock_name(bank))
    until = time.monotonic() + wait
    try:
        with system_errors(bank, "locking the bank"):
            if edits and not bank.exists():  # what is not there gets no lock
                raise MissingError(absent(bank))
            while not lock.take():
                if time.monotonic() >= until:
                    raise BankLocked(_refusal(bank, lock))
                time.sleep(_PAUSE)
        with holding(bank, edits=edits):
            yield
    finally:
        lock.give_back()


def clear_lock(path: Path) -> None:
    """Remove the lock of a name, where a process that held it was ended."""
    lock = _Lock(lock_name(path))
    with contextlib.suppress(OSError):
        if lock.path.exists() and lock.take():
            lock.give_back()


def _refusal(bank: Path, lock: _Lock) -> str:
    dead = f", or delete {lock.path} if that one is gone" if lock.soft else ""
    return f"{bank}: locked by {_holder(lock.path)}; try again, or say --wait SECONDS{dead}"
