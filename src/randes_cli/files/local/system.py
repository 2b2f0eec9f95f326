"""What not every system has: positioned reads and writes, locks, flags, free space.

Where a call is missing (Windows has few of them) another does the same, more slowly.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None  # type: ignore[assignment]

#: Whether files that are open can be renamed and unlinked.
POSIX = fcntl is not None
#: Flags of every `os.open`: no child gets the file, and no byte of it is taken for a line's end.
FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)

#: Holds the position of a file where calls share it.
_POSITION = threading.Lock()


def read_at(fd: int, view: memoryview, offset: int) -> int:
    """Fill a beginning of `view` from `offset` of a file; the bytes read, 0 at its end."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [view], offset)
    if hasattr(os, "pread"):
        data = os.pread(fd, len(view), offset)
    else:
        with _POSITION:
            os.lseek(fd, offset, os.SEEK_SET)
            data = os.read(fd, len(view))
    view[: len(data)] = data
    return len(data)


def fill(fd: int, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset` of a file; the bytes read, fewer where it ends."""
    done = 0
    while done < len(view) and (more := read_at(fd, view[done:], offset + done)):
        done += more
    return done


def let_go(fd: int) -> None:
    """Close a file of which nothing is lost where that fails; -1 is none."""
    with contextlib.suppress(OSError):
        if fd >= 0:
            os.close(fd)


def piece_at(fd: int, count: int, offset: int) -> bytes:
    """Bytes from `offset` of a file: fewer than `count` where they cannot be had in one call."""
    return os.pread(fd, count, offset) if hasattr(os, "pread") else b""


def write_at(fd: int, view: memoryview, offset: int) -> int:
    """Write a beginning of `view` at `offset` of a file; the bytes written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, view, offset)
    with _POSITION:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.write(fd, view)


def lock(fd: int, *, wait: bool) -> None:
    """Lock an open file against other openers. Raises OSError (ENOSYS where none can be)."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def if_dead(locked: Path, then: Callable[[], object]) -> None:
    """Do something where a file's lock is free: whoever held it has died. What fails is left."""
    with contextlib.suppress(OSError):
        fd = os.open(locked, os.O_RDWR | NO_FOLLOW | NO_WAIT | FLAGS)
        try:
            lock(fd, wait=False)
            then()
        finally:
            os.close(fd)


def free_bytes(folder: Path) -> int | None:
    """Bytes that the file system of a folder has free for this user; None where it has no figures.

    ramfs has none: writing tells.
    """
    if not hasattr(os, "statvfs"):
        return shutil.disk_usage(folder).free if hasattr(shutil, "disk_usage") else None
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    return free if free or found.f_blocks else None


def set_mode(fd: int, path: Path, mode: int) -> None:
    """Give an open file at `path` its permissions."""
    if hasattr(os, "fchmod"):
        os.fchmod(fd, mode)
    else:
        path.chmod(mode)


def most_open() -> int:
    """Files that one bank may keep open at once: a quarter of what the system allows."""
    allowed = 512 if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(4, min(4096, allowed // 4)) if allowed > 0 else 4096


def is_folder(path: Path) -> bool:
    """Whether a folder is at a path, as far as the system says."""
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def resolved(path: Path) -> Path:
    """Where a path leads; of a link that leads to itself, the path, which then cannot be opened."""
    try:
        return path.resolve()
    except (RuntimeError, OSError):
        return path.absolute()


def give_back() -> None:
    """Give memory that is free again back to the system: glibc keeps it, for each thread.

    Of many arrays of a megabyte that came and went it keeps a fifth of what a process has.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
