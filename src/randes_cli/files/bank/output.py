"""A bank that takes its name when it is whole: one file, or shards and then their index."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from randes_cli.errors import BankDamaged, MissingError, RandesError, UsageError
from randes_cli.files.atomic import atomic_file, passing_name
from randes_cli.files.bank.checks import check_agreement
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.keys import MANIFEST
from randes_cli.files.bank.manifest import Manifest, decode, encode
from randes_cli.files.bank.shard_folder import ShardFolder, prune, unnamed
from randes_cli.files.bank.shards import shard_folder, shard_key
from randes_cli.files.hidden import TEMPORARY, short, sibling
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.system import give_back
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.passing import passing_folder
from randes_cli.files.weight_file import open_weights
from randes_cli.limits import MOST_MANIFEST
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress, no_progress


class BankOutput:
    """Files of a bank under way.

    Attributes:
        path: the bank's name.
        index: the temporary file that takes it.
        most: bytes of a shard at the most; None where the bank is one file.
        folder: makes and names shards.
    """

    def __init__(
        self, path: Place, index: OutputFile, most: int | None, folder: ShardFolder
    ) -> None:
        self.path, self.index, self.most, self.folder = path, index, most, folder
        self._left: list[Path] = []

    def reserve(self, size: int) -> None:
        """Take room for a bank of one file; shards take theirs when they begin."""
        self.folder.total = size
        if self.most is None:
            self.index.reserve(size)

    def complete(self, named: Collection[str]) -> None:
        """The shards that the index names are there: what others there are goes after it."""
        self.folder.sync()
        self._left = unnamed(self.folder.path, named)

    def end(self, *, committed: bool) -> None:
        """Remove what no index names: of the old bank, or of a new one that failed.

        Without word of the commit (a signal came between) it is the index that knows.
        """
        known = committed or isinstance(self.path, RemotePath)  # a store keeps what was sent
        self.folder.discard(None if known else shard_names(self.path))
        if committed:
            prune(self._left, self.folder.path)


@contextlib.contextmanager
def bank_output(
    path: Place, *, force: bool, most: int | None, progress: Progress = no_progress
) -> Iterator[BankOutput]:
    """A bank that appears at `path` when the block ends well, by one rename; see `atomic_file`.

    Shards get their names before it, and those that no index names any more go after it (in a
    store they stay: readers have nothing else to hold them by).
    """
    made: BankOutput | None = None
    committed, told = False, progress if most is None else no_progress
    try:
        with (
            _shards(path, progress) as folder,
            atomic_file(path, force=force, progress=told) as index,
        ):
            made = BankOutput(path, index, most, folder)
            yield made
        committed = True
    finally:
        if made is not None:
            made.end(committed=committed)


@contextlib.contextmanager
def passing_bank(path: Place) -> Iterator[Place]:
    """A name beside `path`, for workers too, of a bank that goes when the block ends."""
    if isinstance(path, RemotePath):
        from randes_cli.files.bank.stored_shards import remove_stored

        there = sibling(path)
        try:
            yield there
        finally:
            remove_stored(there)
        return
    remove_passing(path)
    with passing_name(path) as live:
        try:
            yield live
        finally:
            folder = shard_folder(live)
            prune(unnamed(folder, ()), folder)


def remove_passing(path: Path) -> None:
    """Remove the shards of passing banks beside `path` whose writers are dead.

    The caller holds the lock of its name.
    """
    for folder in path.parent.glob(f".{glob.escape(short(path.name))}.*{TEMPORARY}.d"):
        if not folder.with_suffix("").exists():
            prune(unnamed(folder, ()), folder)


@contextlib.contextmanager
def shard_maker(path: Place) -> Iterator[ShardFolder]:
    """Where a worker makes shards of a bank whose lock another has, who made it ready."""
    with _shards(path, no_progress, prepared=True) as made:
        try:
            yield made
        finally:
            made.clear()


@contextlib.contextmanager
def _shards(path: Place, progress: Progress, *, prepared: bool = False) -> Iterator[ShardFolder]:
    if not isinstance(path, RemotePath):
        yield ShardFolder(path, prepared=prepared)
        return
    from randes_cli.files.bank.stored_shards import StoredShards

    with passing_folder() as here:
        yield StoredShards(path, here / short(path.name), progress)


def shard_names(path: Place) -> list[str] | None:
    """The shards that the index at a path names; None where there is one that cannot be read.

    To look at it makes it no input of the command, which may go on to replace it.
    """
    try:
        with one_command(afresh=True):
            file = open_weights(path)
    except MissingError:
        return []
    except RandesError:
        return None
    file.close()
    prefix = shard_key("")
    names = [key for key in file.header.tensors if key.startswith(prefix)]
    return [key.removeprefix(prefix) for key in names if MANIFEST in file.header.tensors]


def readable(path: Place, manifest: Manifest, tensors: Mapping[str, TensorInfo]) -> bytes:
    """The manifest's bytes, which a reader takes and finds in agreement with the tensors."""
    try:
        text = encode(manifest)
        if len(text) > MOST_MANIFEST:
            raise UsageError(f"{path}: a manifest of more than {MOST_MANIFEST} bytes")
        give_back()  # of 100,000 tensors each of the two takes a sixth of what a process has
        read = decode(text)
        check_agreement(read, tensors)
    except (BankDamaged, UnicodeEncodeError) as error:
        reason = f"{path}: not written, for it could not be read again: {error}"
        raise UsageError(reason) from None
    del read
    give_back()
    return text


def write_index(
    out: OutputFile,
    container: Container,
    parts: Sequence[tuple[str, bytes]],
    metadata: dict[str, str],
    room: int | None = None,
) -> int:
    """Write these last tensors, digests and the header, of `room` bytes where that is reserved.

    Returns the file's bytes.
    """
    for key, data in parts:
        tensor = TensorInfo(key, "U8", (len(data),))
        container.place(tensor)
        container.digest_whole(tensor, data)
    container.place_checks()
    header = container.header(metadata, size=room)
    if room is not None and len(header) != room:
        raise AssertionError("the header outgrew its reserve")
    for key, data in parts:
        out.write_at(data, len(header) + container.start(key))
    checks = container.checks(header)
    size = len(header) + container.size
    out.write_at(checks, size - len(checks))
    out.write_at(header, 0)
    out.resize(size)
    return size
