"""The shards of a bank that goes to a store: made here one at a time, and sent when they are whole.

They are there before the index that names them, and what the index before it named stays: a reader
may be at it. `verify --prune` removes what nobody names any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from randes_cli.errors import RandesError
from randes_cli.files.location import RemotePath
from randes_cli.files.shard_folder import NewShard, ShardFolder
from randes_cli.files.shards import is_shard_file, shard_file
from randes_cli.files.store import look_up, patiently, reach, store_errors
from randes_cli.files.upload import upload
from randes_cli.workers import Progress, no_progress


def shards_of(bank: RemotePath) -> RemotePath:
    """Where the shards of a bank in a store lie."""
    return bank.with_name(f"{bank.name}.d")


class StoredShards(ShardFolder):
    """Shards under way to a store; `here` is a name for them among the temporary files."""

    def __init__(self, bank: RemotePath, here: Path, progress: Progress = no_progress) -> None:
        super().__init__(here)
        self._there, self._progress = shards_of(bank), progress
        self._sent: list[RemotePath] = []

    def publish(self, new: NewShard, name: str) -> None:
        """Send a finished shard, unless the store has it already."""
        super().publish(new, name)
        made, target = self.path / shard_file(name), self._there / shard_file(name)
        found, size = look_up(target), made.stat().st_size
        if found is None or found.get("size") != size:
            upload(made, target, force=True, progress=self._progress, total=self.total)
            self._sent.append(target)
        else:
            self._progress("uploading", size, self.total or size)
        made.unlink()

    def note(self, name: str) -> None:
        """A worker sent a shard."""
        self._sent.append(self._there / shard_file(name))

    def discard(self, kept: Collection[str] | None) -> None:
        """Remove what did not become part of a bank: all but the shards `kept` (None: all do)."""
        super().discard(kept)
        if kept is not None:
            stay = set(map(shard_file, kept))
            prune_stored([path for path in self._sent if path.name not in stay])


def unnamed_stored(bank: RemotePath, named: Collection[str]) -> list[RemotePath]:
    """The shards beside an index in a store that it does not name. Raises HubError."""
    folder, keep = shards_of(bank), set(map(shard_file, named))
    filesystem, inside = reach(folder)

    def find() -> list[str]:
        filesystem.invalidate_cache(inside)
        return [name.rpartition("/")[2] for name in filesystem.find(inside)]

    found = sorted(set(patiently(folder, find)) - keep)
    return [folder / name for name in found if is_shard_file(name)]


def prune_stored(paths: Collection[RemotePath]) -> int:
    """Remove shards that no index names; bytes freed."""
    freed = 0
    for path in paths:
        with contextlib.suppress(RandesError):
            found = look_up(path)
            filesystem, inside = reach(path)
            with store_errors(path):
                filesystem.rm_file(inside)
            freed += int((found or {}).get("size") or 0)
    return freed
