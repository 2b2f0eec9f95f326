"""An output file on the disk: positioned writes and copies, and what the system says of them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from randes_cli.core.arrays import Raw
from randes_cli.errors import (
    FULL,
    InputOutputError,
    MissingError,
    NoSpace,
    OutOfResources,
    RandesError,
    TooManyOpen,
    UsageError,
)
from randes_cli.files.local import system
from randes_cli.files.nearest import absent


def wrap_os_error(
    error: OSError, path: Path | str, doing: str, *, so: str = "nothing was changed"
) -> RandesError:
    """The randes error that tells what the system refused, on which file.

    `so` is what comes of it where the disk is full.
    """
    reason = error.strerror or (os.strerror(error.errno) if error.errno else str(error))
    if error.errno in FULL:
        return NoSpace(f"{path}: no space left while {doing} ({reason}); {so}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingError(absent(Path(path)))
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{path}: a longer name than the file system takes")
    if error.errno == errno.ENOMEM:
        return OutOfResources(f"{path}: not enough memory while {doing}")
    full = error.errno in (errno.EMFILE, errno.ENFILE)
    return (TooManyOpen if full else InputOutputError)(f"{path}: {reason} while {doing}")


@contextlib.contextmanager
def system_errors(path: Path | str, doing: str) -> Iterator[None]:
    """A block in which what the system refuses comes out as `wrap_os_error` has it."""
    try:
        yield
    except OSError as error:
        raise wrap_os_error(error, path, doing) from error


def read_beginning(path: Path, most: int) -> bytes:
    """At most so many bytes of a file, or of a pipe that somebody writes to. Raises OSError.

    Of a pipe without a writer there are none: it is not waited for.
    """
    fd = os.open(path, os.O_RDONLY | system.FLAGS | system.NO_WAIT)
    with os.fdopen(fd, "rb") as file:
        if system.NO_WAIT:
            os.set_blocking(file.fileno(), True)
        return file.read(most)


def entries(folder: Path) -> list[Path]:
    """What is in a folder, by name."""
    with system_errors(folder, "listing"):
        return sorted(folder.iterdir())


#: Bytes after which what was written is sent on its way to the disk.
_SEND_EVERY = 2**24
_SYNC_FILE_RANGE_WRITE = 2
#: Bytes of a file that are written at once, from a multiple of as many on: as in
#: core/compiled/chunk.h.
TOGETHER = 2**16


@cache
def _linux(name: str, arguments: str) -> Callable[..., int] | None:
    """A function of Linux' C library that Python does not have; it returns an error number."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # only what writes large files has a use for it

    found = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if found is None:
        return None
    kinds = {"int": ctypes.c_int, "unsigned": ctypes.c_uint, "long": ctypes.c_int64}
    found.argtypes = [kinds[word] for word in arguments.split()]
    return lambda *values: ctypes.get_errno() if found(*values) else 0


def _start_writing(fd: int) -> None:
    """Begin to write a file's new pages, and do not wait. A hint, which may fail."""
    send = _linux("sync_file_range", "int long long unsigned")
    if send is not None:
        send(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def _allocate(fd: int, size: int) -> None:
    """Give a file its room on the disk at once, where the system can."""
    allocate = _linux("fallocate", "int int long long")
    failed = allocate(fd, 0, 0, size) if allocate is not None and size else 0
    if failed in FULL:
        raise OSError(failed, os.strerror(failed))


class OutputFile:
    """An open temporary file: positioned writes from any thread, read back by offset."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path
        self._unsent = 0

    def written_by(self) -> contextlib.AbstractContextManager[None]:
        """A block in which something else writes to the file: what it raises names the file."""
        return system_errors(self.path, "writing")

    def sent(self, count: int) -> None:
        """So many bytes were written: the disk is kept busy from the start.

        Then the fsync of the commit is short. Threads may lose counts to each other.
        """
        self._unsent += count
        if self._unsent >= _SEND_EVERY:
            self.send()

    def send(self) -> None:
        """Begin to send what was written to the disk, and do not wait."""
        self._unsent = 0
        _start_writing(self.fd)

    def reserve(self, size: int) -> None:
        """Take the room for `size` bytes from the disk before the first is written."""
        with system_errors(self.path, "making room"):
            _allocate(self.fd, size)

    def write_at(self, data: object, offset: int) -> None:
        """Write all of a bytes-like object at `offset`."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        count = len(view)
        with self.written_by():
            while len(view):
                part = view[: TOGETHER - offset % TOGETHER]
                done = system.write_at(self.fd, part, offset)
                view, offset = view[done:], offset + done
        self.sent(count)

    def read_at(self, out: Raw, offset: int) -> None:
        """Fill `out` with what was written from `offset` on."""
        with system_errors(self.path, "reading back"):
            if system.fill(self.fd, out.data, offset) < len(out):
                raise OSError(errno.EIO, "the file ends early")

    def copy_from(self, source: int, start: int, count: int, offset: int) -> None:
        """Copy `count` bytes of another open file, inside the kernel where it can.

        Raises EOFError where that file is shorter by now.
        """
        with system_errors(self.path, "copying"):
            while count:
                done = _copy_range(source, self.fd, min(count, 2**26), start, offset)
                if not done:
                    raise EOFError
                start, offset, count = start + done, offset + done, count - done
                self.sent(done)

    def resize(self, size: int) -> None:
        with system_errors(self.path, "making room"):
            os.ftruncate(self.fd, size)


def _copy_range(source: int, target: int, count: int, start: int, offset: int) -> int:
    """Copy some bytes: what the system refuses to copy by itself is read and written."""
    if hasattr(os, "copy_file_range"):
        with contextlib.suppress(OSError):  # if it is no more than that, writing says so, too
            done = os.copy_file_range(source, target, count, start, offset)
            if done:
                return done
    data = bytearray(min(count, 2**20))
    done = system.read_at(source, memoryview(data), start)
    return system.write_at(target, memoryview(data)[:done], offset)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last, where the system can. Raises OSError where it fails to."""
    try:
        fd = os.open(folder, os.O_RDONLY | system.FLAGS)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        system.let_go(fd)
