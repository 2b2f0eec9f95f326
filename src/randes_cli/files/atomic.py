"""One commit point: a sibling temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from randes_cli.errors import InputOutputError, MissingError, NoSpace, UsageError
from randes_cli.files.hidden import is_under_way, short, sibling
from randes_cli.files.local.disk import OutputFile, sync_folder, system_errors, wrap_os_error
from randes_cli.files.local.guard import check_steady, refuse_input
from randes_cli.files.local.lock import output_lock
from randes_cli.files.local.system import FLAGS, POSIX, free_bytes, if_dead, lock, set_mode
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.passing import passing_folder
from randes_cli.files.upload import check_upload, passing_place, upload
from randes_cli.interrupts import unstoppable
from randes_cli.workers import Progress, no_progress

#: Shards of a bank that are here at a time where they go into a store, at the most.
_AT_HAND = 4


def check_target(path: Place, *, force: bool) -> None:
    """Refuse an output that exists (unless `force`), is an input, or is no place for a file."""
    if isinstance(path, RemotePath):
        check_upload(path, force=force)
        refuse_input(path)
        return
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
    if stat.S_ISLNK(mode):  # one to a file is replaced, not /dev/stdout
        with contextlib.suppress(OSError):
            mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a folder; name a file")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path}: not a regular file")
    if not force:
        raise UsageError(f"{path}: exists (say --force to replace it)")
    refuse_input(path)


def check_space(out: Place, need: int, most: int | None = None) -> None:
    """Raise NoSpace where less than `need` bytes are free for an output.

    What goes into a store is made here first, in the folder of temporary files: a bank in shards
    of `most` bytes takes the room of a few, for they go one after the other.
    """
    if isinstance(out, RemotePath) and most is not None:
        need = min(need, _AT_HAND * most)
    folder = passing_place() if isinstance(out, RemotePath) else out
    folder = folder if folder.is_dir() else folder.parent
    with system_errors(folder, "asking for free space"):
        free = free_bytes(folder)
    if free is None or free >= need:
        return
    if isinstance(out, RemotePath):
        raise NoSpace(
            f"{folder}: {need:,} bytes needed, {free:,} free; {out} is made there before it is "
            "uploaded: name a folder with room in TMPDIR, or a smaller --max-shard-size"
        )
    raise NoSpace(f"{folder}: {need:,} bytes needed, {free:,} free")


@contextlib.contextmanager
def passing_name(path: Place) -> Iterator[Path]:
    """A name beside `path` for a file that goes when the block ends.

    For an output in a store it is among the temporary files here.
    """
    if isinstance(path, RemotePath):
        with passing_folder() as folder:
            yield folder / f"new.{short(path.name)}"
        return
    made = sibling(path)
    try:
        yield made
    finally:
        _put_away(made, -1, committed=False)


def remove_stale(path: Path) -> None:
    """Delete temporary files of `path`, and theirs, whose writers are dead (the lock is free)."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if is_under_way(entry.name, path):
                if_dead(Path(entry.path), partial(os.unlink, entry.path))


@unstoppable
def _create(temporary: Path, path: Path) -> int:
    """Create and lock a temporary file. The lock tells others that its writer lives."""
    while True:
        with system_errors(path, "creating the output"):
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o666)
        with contextlib.suppress(OSError):  # file systems without locks
            lock(fd, wait=True)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # somebody took it for stale before it was locked


def keep_mode(fd: int, temporary: Path, path: Path) -> None:
    """Give the new file the permissions of the one at `path`, where there is one."""
    with contextlib.suppress(OSError):
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            set_mode(fd, temporary, stat.S_IMODE(mode))


@contextlib.contextmanager
def atomic_file(
    path: Place, *, force: bool, progress: Progress = no_progress
) -> Iterator[OutputFile]:
    """A temporary file beside `path` that becomes `path` when the block ends well.

    The rename is the commit: before it nothing but the temporary file was touched, after it
    the new file is whole. A link at `path` is replaced, never written through. The lock of the
    name is held until then: whoever edits a bank there is not overtaken. A file in a store is
    made here, and uploaded at the end: see `upload`.
    Raises UsageError (exists, or is an input), MissingError (no folder), BankLocked, NoSpace,
    InputOutputError, HubError.
    """
    check_target(path, force=force)
    if isinstance(path, RemotePath):
        with passing_name(path) as here:
            with _temporary(here, force=True) as file:
                yield file
            upload(here, path, force=force, progress=progress)
        return
    with output_lock(path):
        remove_stale(path)
        with _temporary(path, force=force) as file:
            yield file


@contextlib.contextmanager
def _temporary(path: Path, *, force: bool) -> Iterator[OutputFile]:
    temporary = sibling(path)
    fd, committed = -1, False
    try:
        fd = _create(temporary, path)
        yield OutputFile(fd, path)
        keep_mode(fd, temporary, path)
        with system_errors(path, "committing"):
            check_steady()
            os.fsync(fd)
            if not POSIX:  # an open file could not be renamed
                os.close(fd)
                fd = -1
            check_target(path, force=force)
            os.replace(temporary, path)
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


def write_whole(path: Place, data: bytes, *, force: bool) -> None:
    """Write a small file whole or not at all; raises as `atomic_file` does."""
    with atomic_file(path, force=force) as out:
        out.write_at(data, 0)


def _sync_folder(path: Path) -> None:
    """Make a rename last; see `sync_folder`."""
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise InputOutputError(
            f"{path}: written and in place, but the folder was not synced "
            f"({error.strerror}): a power failure may bring the old file back"
        ) from error
