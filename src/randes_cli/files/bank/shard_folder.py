"""The folder of a bank's shards while it is written to, and what no index names any more.

Whoever writes there holds the lock of the bank: temporary files that are found belong to the dead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from randes_cli.errors import UsageError
from randes_cli.files.atomic import keep_mode
from randes_cli.files.bank.shards import folder_beside, is_shard_file, shard_file
from randes_cli.files.hidden import is_temporary, sibling
from randes_cli.files.local.disk import OutputFile, sync_folder, system_errors
from randes_cli.files.local.system import FLAGS, NO_FOLLOW, NO_WAIT, let_go, most_open, read_at
from randes_cli.files.location import Place
from randes_cli.files.stores.segments import Part
from randes_cli.interrupts import unstoppable

#: Bytes that are compared at a time.
_PIECE = 2**20


class NewShard:
    """A shard under way: a temporary file, open where there is room for that.

    `there`: a worker has made it.
    """

    def __init__(self, path: Path, *, keep: bool, there: bool = False) -> None:
        self.path, self._out = path, OutputFile(-1, path)
        if not there:
            self._create(keep=keep)

    @unstoppable
    def _create(self, *, keep: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS
        fd = os.open(self.path, flags, 0o666)
        if keep:
            self._out.fd = fd
        else:
            os.close(fd)

    @contextlib.contextmanager
    def opened(self) -> Iterator[OutputFile]:
        """The file, to write to and read back from."""
        if self._out.fd >= 0:
            yield self._out
            return
        with system_errors(self.path, "writing"):
            fd = os.open(self.path, os.O_RDWR | FLAGS | NO_FOLLOW)
        try:
            yield OutputFile(fd, self.path)
        finally:
            os.close(fd)

    @unstoppable
    def close(self) -> None:
        fd, self._out.fd = self._out.fd, -1
        let_go(fd)  # its data were synced, or are not wanted


class ShardFolder:
    """The folder beside an index, where new shards are made and then get their names.

    `prepared`: it is another's, who holds the lock of the bank, and was made ready.

    Attributes:
        total: bytes that all shards come to, about, for whoever tells of progress.
        sends: whether shards go elsewhere, and make room here as soon as they are whole.
    """

    total: int | None = None
    sends = False

    def __init__(self, bank: Path, *, prepared: bool = False) -> None:
        self.bank, self.path = bank, folder_beside(bank)
        self._prepared = prepared
        self._new: dict[Path, NewShard] = {}
        self._created = self._named = False

    def create(self, size: int) -> NewShard:
        """A new shard of so many bytes, without a name yet. Raises what making a file raises."""
        with system_errors(self.path, "creating a shard"):
            self.prepare()
            made = NewShard(sibling(self.path / "new"), keep=len(self._new) < most_open())
        self._new[made.path] = made
        with made.opened() as out:
            out.reserve(size)
            out.resize(size)
        return made

    def prepare(self) -> None:
        """Make the folder, and remove what the dead left in it."""
        if self._prepared:
            return
        self._prepared = True
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise UsageError(f"{self.path}: not a folder, and shards go there; name another output")
        with contextlib.suppress(FileExistsError):
            self.path.mkdir()
            self._created = True
        remove_temporary(self.path)

    def publish(self, new: NewShard, name: str, *, early: bool = False) -> None:
        """Give a finished shard its name. Where the same bytes have it already, they stay.

        `early`: while others are made.
        """
        target = self.path / shard_file(name)
        self._named = True  # who had made it may have died before its name lasted
        with system_errors(target, "committing a shard"):
            with new.opened() as out:
                keep_mode(out.fd, new.path, self.bank)  # who may read it may read its shards
                if _same_bytes(out.fd, target):
                    self.drop(new)
                    return
                os.fsync(out.fd)
            new.close()
            os.replace(new.path, target)
            self._new.pop(new.path, None)

    def adopt(self, path: Path) -> NewShard:
        """A new shard that a worker made; it has no name yet."""
        made = self._new[path] = NewShard(path, keep=False, there=True)
        return made

    def note(self, name: str) -> None:
        """A worker gave a shard its name."""
        self._named = True

    def leave(self, new: NewShard, part: Part | None = None) -> Place:
        """Hand a shard without a name, or a part of one, to who asked for it: where it is."""
        return self._left(new)

    def hold(self, part: Place) -> None:
        """A worker has left a part of a shard: it goes with all that does not become a bank."""
        if isinstance(part, Path):
            self.adopt(part)

    def release(self, part: Place) -> None:
        """It is not needed any more."""
        if isinstance(part, Path):
            self.drop(self._new[part])

    def _left(self, new: NewShard) -> Path:
        with system_errors(new.path, "syncing a shard"), new.opened() as out:
            os.fsync(out.fd)
        new.close()
        self._new.pop(new.path, None)
        return new.path

    def clear(self) -> None:
        for new in list(self._new.values()):
            self.drop(new)

    def drop(self, new: NewShard) -> None:
        new.close()
        _unlink(new.path)
        self._new.pop(new.path, None)

    def sync(self) -> None:
        """Make the names last."""
        with system_errors(self.path, "syncing the folder"):
            if self._named:
                sync_folder(self.path)
                sync_folder(self.path.parent)

    def discard(self, kept: Collection[str] | None) -> None:
        """Remove what did not become part of a bank: all but the shards `kept` (None: all do)."""
        self.clear()
        if self._prepared:
            remove_temporary(self.path)
        if kept is not None and self._prepared:
            prune(unnamed(self.path, kept), self.path)
        if self._created:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _piece(fd: int, at: int) -> bytearray:
    data = bytearray(_PIECE)
    del data[read_at(fd, memoryview(data), at) :]
    return data


def _same_bytes(fd: int, path: Path) -> bool:
    """Whether there is a file with the bytes of an open one."""
    try:
        other = os.open(path, os.O_RDONLY | FLAGS | NO_FOLLOW | NO_WAIT)
    except OSError:
        return False
    try:
        size = os.fstat(other).st_size
        if size != os.fstat(fd).st_size:  # of what is no regular file it is 0, or reading fails
            return False
        pieces = range(0, size, _PIECE)
        return all(_piece(fd, at) == _piece(other, at) for at in pieces)
    except OSError:
        return False
    finally:
        os.close(other)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The files of a folder of shards; none where it is a link, for then it may be another's."""
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            with os.scandir(folder) as found:
                return [entry for entry in found if not entry.is_dir(follow_symlinks=False)]
    return []


def remove_temporary(folder: Path) -> None:
    """Remove what writers left that are dead. The caller holds the lock of the bank."""
    for entry in _entries(folder):
        if is_temporary(entry.name):
            _unlink(Path(entry.path))


def unnamed(folder: Path, named: Collection[str]) -> list[Path]:
    """The shards in a folder that an index does not name, and what dead writers left."""
    keep = {shard_file(name) for name in named}
    return sorted(
        Path(entry.path)
        for entry in _entries(folder)
        if is_temporary(entry.name) or (is_shard_file(entry.name) and entry.name not in keep)
    )


def prune(paths: Collection[Path], folder: Path) -> int:
    """Remove shards that no index names, and the folder where it is empty then; bytes freed."""
    freed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            size = os.lstat(path).st_size
            os.unlink(path)
            freed += size
    with contextlib.suppress(OSError):
        if paths:
            folder.rmdir()
    return freed
