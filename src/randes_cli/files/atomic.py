"""One commit point: a sibling temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from randes_cli.errors import InputOutputError, MissingError, NoSpace, RandesError, UsageError
from randes_cli.interrupts import unstoppable

_SUFFIX = ".randes-tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def wrap_os_error(error: OSError, path: Path | str, doing: str) -> RandesError:
    """The randes error that tells what the system refused, on which file."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpace(f"{path}: no space left while {doing} ({reason}); nothing was changed")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingError(f"{path}: not found")
    return InputOutputError(f"{path}: {reason} while {doing}")


#: Bytes after which what was written is sent on its way to the disk.
_SEND_EVERY = 2**26
_SYNC_FILE_RANGE_WRITE = 2
#: Bytes of one write: for more, Linux looks for large pieces of memory that nobody has used yet.
_WRITE_AT_ONCE = 2**19


@cache
def _linux(name: str, arguments: str) -> Callable[..., int] | None:
    """A function of Linux' C library that Python does not have; it returns an error number."""
    import ctypes  # only what writes large files has a use for it

    found = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if not sys.platform.startswith("linux") or found is None:
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
    if failed in _FULL:
        raise OSError(failed, os.strerror(failed))


class OutputFile:
    """An open temporary file: positioned writes from any thread, read back by offset."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path
        self._unsent = 0

    def _send(self, count: int) -> None:
        """Keep the disk busy from the start, so that the fsync of the commit is short.

        Threads may lose counts to each other.
        """
        self._unsent += count
        if self._unsent >= _SEND_EVERY:
            self._unsent = 0
            _start_writing(self.fd)

    def reserve(self, size: int) -> None:
        """Take the room for `size` bytes from the disk before the first is written."""
        try:
            _allocate(self.fd, size)
        except OSError as error:
            raise wrap_os_error(error, self.path, "making room") from error

    def write_at(self, data: object, offset: int) -> None:
        """Write all of a bytes-like object at `offset`."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        count = len(view)
        try:
            while len(view):
                done = os.pwrite(self.fd, view[:_WRITE_AT_ONCE], offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            raise wrap_os_error(error, self.path, "writing") from error
        self._send(count)

    def copy_from(self, source: int, start: int, count: int, offset: int) -> None:
        """Copy `count` bytes of another open file, inside the kernel where it can."""
        try:
            while count:
                done = _copy_range(source, self.fd, min(count, 2**26), start, offset)
                if not done:
                    raise OSError(errno.EIO, "the source ended early")
                start, offset, count = start + done, offset + done, count - done
                self._send(done)
        except OSError as error:
            raise wrap_os_error(error, self.path, "copying") from error

    def resize(self, size: int) -> None:
        """Set the file's length."""
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise wrap_os_error(error, self.path, "making room") from error


#: What a kernel or a file system without copy_file_range answers.
_NO_RANGE_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def _copy_range(source: int, target: int, count: int, start: int, offset: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            done = os.copy_file_range(source, target, count, start, offset)
            if done:
                return done
        except OSError as error:
            if error.errno not in _NO_RANGE_COPY:
                raise
    data = os.pread(source, min(count, 2**20), start)
    return os.pwrite(target, data, offset)


def check_target(path: Path, *, force: bool) -> None:
    """Refuse an output that exists (unless `force`) or that is no place for a file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise MissingError(f"{path.parent}: no such folder for the output") from None
        return
    except NotADirectoryError:
        raise UsageError(f"{path.parent}: not a folder; name another output") from None
    except OSError as error:
        raise wrap_os_error(error, path, "looking at the output") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a folder; name a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path}: not a regular file")
    if not force:
        raise UsageError(f"{path}: exists (say --force to replace it)")


def check_space(folder: Path, need: int) -> None:
    """Raise NoSpace when the file system of `folder` has less than `need` bytes free."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise wrap_os_error(error, folder, "asking for free space") from error
    free = found.f_bavail * found.f_frsize
    if free < need:
        raise NoSpace(f"{folder}: {need} bytes needed, {free} free")


def refuse_same_file(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that is, under whatever name, one of the files that are read for it."""
    with contextlib.suppress(OSError):
        here = path.stat()
        for source in inputs:
            with contextlib.suppress(OSError):
                if os.path.samestat(here, source.stat()):
                    raise UsageError(f"{path}: is the input {source}; name another output")


def sibling(path: Path) -> Path:
    """A name for a temporary file beside `path`; `remove_stale` knows it."""
    return path.parent / f".{path.name}.{os.urandom(6).hex()}{_SUFFIX}"


def remove_stale(path: Path) -> None:
    """Delete temporary files of `path`, and theirs, whose writers are dead (the lock is free)."""
    prefix = f"{path.name.lstrip('.')}."
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and entry.name.endswith(_SUFFIX)
            if hidden and entry.name.lstrip(".").startswith(prefix):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(fd)


@unstoppable
def _create(temporary: Path, path: Path) -> int:
    """Create and lock a temporary file. The lock tells others that its writer lives."""
    while True:
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise wrap_os_error(error, path, "creating the output") from error
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # somebody took it for stale before it was locked


def _keep_mode(fd: int, path: Path) -> None:
    """Give the new file the permissions of the one that it replaces."""
    with contextlib.suppress(OSError):
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            os.fchmod(fd, stat.S_IMODE(mode))


@contextlib.contextmanager
def atomic_file(path: Path, *, force: bool) -> Iterator[OutputFile]:
    """A temporary file beside `path` that becomes `path` when the block ends well.

    The rename is the commit: before it nothing but the temporary file was touched, after it
    the new file is whole. A link at `path` is replaced, never written through.
    Raises UsageError (exists), MissingError (no folder), NoSpace, InputOutputError.
    """
    check_target(path, force=force)
    remove_stale(path)
    temporary = sibling(path)
    fd, committed = -1, False
    try:
        fd = _create(temporary, path)
        yield OutputFile(fd, path)
        _keep_mode(fd, path)
        try:
            os.fsync(fd)
            check_target(path, force=force)
            os.replace(temporary, path)
        except OSError as error:
            raise wrap_os_error(error, path, "committing") from error
        committed = True
        _sync_folder(path)
    finally:
        try:
            _put_away(temporary, fd, committed)
        except OSError:  # of the close: the data were synced, or are not wanted
            pass
        except BaseException:  # a signal, which may have come before anything was done
            _put_away(temporary, -1, committed)
            raise


@unstoppable
def _put_away(temporary: Path, fd: int, committed: bool) -> None:
    if not committed:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    if fd >= 0:
        os.close(fd)


def write_whole(path: Path, data: bytes, *, force: bool) -> None:
    """Write a small file whole or not at all; raises as `atomic_file` does."""
    with atomic_file(path, force=force) as out:
        out.write_at(data, 0)


def _sync_folder(path: Path) -> None:
    """Make a rename last. Some systems cannot sync a folder, or not one that is unreadable."""
    try:
        fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise InputOutputError(
                f"{path}: written and in place, but the folder was not synced "
                f"({error.strerror}): a power failure may bring the old file back"
            ) from error
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
