"""The shards of a bank on this machine's disks: opened beside its index, and kept open."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from randes_cli.core.arrays import Raw
from randes_cli.errors import BankDamaged, InputOutputError, OutOfResources, UsageError
from randes_cli.files.bank.shards import folder_beside, shard_file, shard_folder
from randes_cli.files.local.disk import wrap_os_error
from randes_cli.files.local.guard import is_still, note_input, stamp
from randes_cli.files.local.system import FLAGS, NO_WAIT, let_go, most_open
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.weight_file import read_fully
from randes_cli.interrupts import unstoppable


class ShardFile(Protocol):
    """An open shard. Reads may come from several threads."""

    def read_at(self, offset: int, out: Raw, /) -> None:
        """Fill `out` from `offset`."""

    def close(self) -> None:
        """Close it."""


#: Opens the shard of a name and of so many bytes.
OpenShard = Callable[[str, int], ShardFile]


class LocalShard:
    """A shard beside its index. It stays open where there is room for that.

    While it is open nobody can take it away: an edit that removes it removes a name alone.
    """

    def __init__(self, path: Path, size: int, *, keep: bool) -> None:
        self.path, self._size, self._keep = path, size, keep
        self._fd, self._closed = -1, False
        self._hold(size, keep=keep)
        note_input(path)

    def __reduce__(self) -> tuple[Callable[..., ShardFile], tuple[Path, int, bool]]:
        """Another process opens it again: there its number is nothing's, or somebody else's."""
        return _opened_again, (self.path, self._size, self._keep)

    @unstoppable
    def _hold(self, size: int, *, keep: bool) -> None:
        fd = os.open(self.path, os.O_RDONLY | FLAGS | NO_WAIT)
        found = os.fstat(fd)
        self._stamp = stamp(found)
        sound = stat.S_ISREG(found.st_mode) and found.st_size == size
        if sound and keep:
            self._fd = fd
            return
        os.close(fd)
        if not sound:
            what = "is cut short" if stat.S_ISREG(found.st_mode) else "is no regular file"
            raise BankDamaged(f"{self.path}: this shard of the bank {what}; restore a copy")

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        if self._fd >= 0:
            yield self._fd
            return
        if self._closed:
            raise UsageError(f"{self.path}: is closed; open the bank again")
        try:
            fd = os.open(self.path, os.O_RDONLY | FLAGS | NO_WAIT)
        except FileNotFoundError:
            raise gone(self.path) from None
        except OSError as error:
            raise wrap_os_error(error, self.path, "opening") from error
        try:
            yield fd
        finally:
            os.close(fd)

    def read_at(self, offset: int, out: Raw) -> None:
        """Fill `out` from `offset`. Raises CheckpointError where it ends early."""
        with self.opened() as fd:
            read_fully(fd, self.path, offset, out)

    def written(self) -> bool:
        """Whether somebody wrote to it, in place, since it was opened."""
        if self._fd < 0:
            return self.path.exists() and not is_still(self.path, self._stamp)
        return stamp(os.fstat(self._fd)) != self._stamp

    def close(self) -> None:
        fd, self._fd, self._closed = self._fd, -1, True
        let_go(fd)


class MissingShard:
    """In the place of a shard that is not there, or is no shard; it says so when it is read."""

    def __init__(self, problem: BankDamaged | InputOutputError) -> None:
        self.problem = problem

    def read_at(self, offset: int, out: Raw) -> None:
        """Raises BankDamaged, or InputOutputError."""
        raise self.problem

    def close(self) -> None:
        """Nothing is open."""


def gone(path: Path) -> BankDamaged:
    """The error for a shard that went after the bank was opened."""
    return BankDamaged(
        f"{path}: this shard of the bank is gone (an edit meanwhile? open the bank again)"
    )


def open_shards(bank: Place) -> OpenShard:
    """Opens the shards of an index, here or in a store."""
    if not isinstance(bank, RemotePath):
        return local_shards(bank)
    from randes_cli.files.stores.remote import StoredShard

    folder = folder_beside(bank)
    return lambda name, _: StoredShard(folder / shard_file(name))


def local_shards(bank: Path) -> OpenShard:
    """Opens the shards beside an index; one that is missing answers when it is read."""
    folder, room = shard_folder(bank), most_open()
    count = 0

    def open_shard(name: str, size: int) -> ShardFile:
        nonlocal count
        count += 1
        path = folder / shard_file(name)
        return _opened(path, size, keep=count <= room, missing=lambda: _missing(bank, folder, path))

    return open_shard


def _opened(path: Path, size: int, *, keep: bool, missing: Callable[[], BankDamaged]) -> ShardFile:
    try:
        return LocalShard(path, size, keep=keep)
    except (FileNotFoundError, NotADirectoryError):
        return MissingShard(missing())
    except BankDamaged as error:
        return MissingShard(error)
    except OSError as error:
        problem = wrap_os_error(error, path, "opening")
        if isinstance(problem, OutOfResources):  # no fault of the shard
            raise problem from error
        return MissingShard(InputOutputError(str(problem)))


def _opened_again(path: Path, size: int, keep: bool) -> ShardFile:
    return _opened(path, size, keep=keep, missing=lambda: gone(path))


def _missing(bank: Path, folder: Path, path: Path) -> BankDamaged:
    if not folder.is_dir():
        return BankDamaged(
            f"{bank}: its shards are missing: there is no folder {folder} "
            "(an index is moved and renamed together with it)"
        )
    return BankDamaged(f"{bank}: its shard {folder.name}/{path.name} is missing; restore a copy")


def problem_of(shard: ShardFile) -> BankDamaged | InputOutputError | None:
    """Why a shard cannot be read, where that is known."""
    return shard.problem if isinstance(shard, MissingShard) else None
