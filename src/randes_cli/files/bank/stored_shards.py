"""The shards of a bank that goes to a store: made here one at a time, and sent when they are whole.

They are there before the index that names them. What no index names stays, too: a reader may be at
what the index before it named, and another writer may count on what one that failed has sent.
`verify --prune` removes it when it is old.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from randes_cli.errors import HubError, RandesError
from randes_cli.files.bank.shard_folder import NewShard, ShardFolder
from randes_cli.files.bank.shards import folder_beside, is_shard_file, shard_file
from randes_cli.files.hidden import is_temporary, is_under_way
from randes_cli.files.location import Place, RemotePath
from randes_cli.files.stores.parts import begun_parts, end_parts, forget_part, join_parts, send_part
from randes_cli.files.stores.segments import Part, Segment
from randes_cli.files.stores.store import files_in, last_write, look_up, reach, store_errors
from randes_cli.files.upload import upload
from randes_cli.workers import Progress, no_progress

#: Hours that a leftover in a store is let lie: another writer may be about to name it.
PRUNE_HOURS = 24


class StoredShards(ShardFolder):
    """Shards under way to a store; `here` is a name for them among the temporary files.

    Of those that are sent while others are made, that work's progress tells.
    """

    sends = True

    def __init__(self, bank: RemotePath, here: Path, progress: Progress = no_progress) -> None:
        super().__init__(here)
        self._there, self._progress = folder_beside(bank), progress
        self._parts: list[RemotePath] = []

    def publish(self, new: NewShard, name: str, *, early: bool = False) -> None:
        """Send a finished shard, unless the store has it already.

        One that is old there is sent again: `prune_leftovers` may take it for a leftover.
        """
        super().publish(new, name)
        made, target = self.path / shard_file(name), self._there / shard_file(name)
        size = made.stat().st_size
        progress = no_progress if early else self._progress
        self.total = max(0, (self.total or size) - size * early)
        if self._lies(target, size):
            progress("uploading", size, self.total)
        else:
            upload(made, target, force=True, progress=progress, total=self.total)
        made.unlink()

    def _lies(self, target: RemotePath, size: int) -> bool:
        """Whether a shard is there, and young enough to stay."""
        found = look_up(target)
        return found is not None and found.get("size") == size and not _is_old(target, found)

    def leave(self, new: NewShard, part: Part | None = None) -> Place:
        """Send a worker's part of a shard, under a passing name: where it is."""
        if part is None:
            raise AssertionError("a shard without a name in a store")
        here = self._left(new)
        there = send_part(here, self._there, part)
        here.unlink()
        return there

    def join(self, name: str, segments: Sequence[Segment], size: int) -> None:
        """Make a shard of parts that are there."""
        target = self._there / shard_file(name)
        if self._lies(target, size):
            return
        join_parts(target, segments)
        found = look_up(target)
        if found is None or found.get("size") != size:
            raise HubError(f"{target}: did not come together from the workers' parts; say it again")

    def hold(self, part: Place) -> None:
        if isinstance(part, RemotePath):
            self._parts.append(part)

    def release(self, part: Place) -> None:
        if isinstance(part, RemotePath):
            self._parts.remove(part)
            if part not in self._parts:
                forget_part(part)

    def note(self, name: str) -> None:
        """A worker sent a shard: nothing here is to last."""

    def discard(self, kept: Collection[str] | None) -> None:
        super().discard(kept)
        for part in dict.fromkeys(self._parts):
            forget_part(part)


@dataclass(frozen=True, slots=True)
class Leftover:
    """What lies beside an index in a store and belongs to no bank: an object, or parts of one.

    `upload`: of an upload that nobody has ended, its id. `since`: when it came (None: not told).
    """

    place: RemotePath
    since: datetime | None
    upload: str | None = None

    @property
    def name(self) -> str:
        """Its name, for people."""
        return self.place.name + (" (an upload that was not ended)" if self.upload else "")

    def is_older(self, hours: int) -> bool:
        """Whether it came longer ago than so many hours. Of what is not told, only by none."""
        if not hours or self.since is None:
            return not hours
        return datetime.now(timezone.utc) - self.since > timedelta(hours=hours)


def unnamed_stored(bank: RemotePath, named: Collection[str]) -> list[Leftover]:
    """Shards that an index in a store does not name, and what dead writers left. Raises HubError.

    Those may still be at work: a store has no locks to tell by.
    """
    folder, keep = folder_beside(bank), set(map(shard_file, named))
    shards = files_in(folder)
    ours = [name for name in shards if is_shard_file(name) or is_temporary(name)]
    found = [_left(folder, shards, name) for name in ours if name not in keep]
    beside = files_in(bank.parent)
    passing = [name for name in beside if is_under_way(name.removesuffix(".d"), bank)]
    for name in passing:
        place = bank.parent / name
        inside = files_in(place) if name.endswith(".d") else {}
        found += [_left(place, inside, one) for one in inside]
        found += [] if name.endswith(".d") else [_left(bank.parent, beside, name)]
    heads = (bank, *(bank.parent / name for name in passing))
    uploads = [
        Leftover(place, since, begun)
        for place, begun, since in begun_parts(bank.parent)
        if place in heads or place.parent in (folder, *heads)
    ]
    return [*found, *uploads]


def _left(folder: RemotePath, found: Mapping[str, Mapping[str, Any]], name: str) -> Leftover:
    return Leftover(folder / name, last_write(found[name]))


def _is_old(place: RemotePath, found: Mapping[str, Any]) -> bool:
    """Whether a shard may go as a leftover before the bank that is to name it is there."""
    return Leftover(place, last_write(found)).is_older(PRUNE_HOURS // 2)


def remove_stored(bank: RemotePath) -> None:
    """Remove a bank, whole or not, that nobody reads."""
    folder = folder_beside(bank)
    with contextlib.suppress(RandesError):
        prune_stored([folder / name for name in files_in(folder)])
        if look_up(bank) is not None:
            prune_stored([bank])


def prune_leftovers(found: Collection[Leftover]) -> int:
    """Remove what no index names; bytes freed, but for those of uploads, which nobody tells."""
    for one in found:
        if one.upload is not None:
            end_parts(one.place, one.upload)
    return prune_stored([one.place for one in found if one.upload is None])


def prune_stored(paths: Collection[RemotePath]) -> int:
    """Remove objects; bytes freed."""
    freed = 0
    for path in paths:
        with contextlib.suppress(RandesError):
            found = look_up(path)
            filesystem, inside = reach(path)
            with store_errors(path):
                filesystem.rm_file(inside)
            freed += int((found or {}).get("size") or 0)
    return freed
