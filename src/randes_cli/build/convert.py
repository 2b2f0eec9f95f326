"""`convert`: a bank in one file as shards, or the reverse.

No value changes, and the way back gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from randes_cli.build.jobs.copies import content_keys, copied
from randes_cli.build.layout import bank_size
from randes_cli.errors import UsageError
from randes_cli.files.atomic import check_target
from randes_cli.files.bank.entries import METADATA
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.sizes import Size
from randes_cli.files.json_text import encode_header
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.lock import bank_lock
from randes_cli.files.location import Place, new_file
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.reports import ConvertReport
from randes_cli.specs import check_shard_size
from randes_cli.workers import Progress, no_progress

R = TypeVar("R")


def _not_one() -> UsageError:
    return UsageError("say --max-shard-size SIZE, or --single-file")


@one_command()
def convert(
    bank: StrPath,
    out: StrPath,
    *,
    max_shard_size: int | None = None,
    single_file: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> ConvertReport:
    """Write a bank as shards of at most `max_shard_size` bytes and their index, or as one file.

    Into a store, or out of one, it goes as it is unless one of them is said. Every byte that is
    copied is checked. Raises UsageError, BankDamaged, BankLocked, NoSpace.
    """
    check_shard_size(max_shard_size)
    path = new_file(out)
    if max_shard_size is not None and single_file:
        raise _not_one()
    if not dry_run:
        check_target(path, force=force)
    with open_bank(as_source(bank)) as old:
        if max_shard_size is None and not single_file:
            if not old.far and isinstance(path, Path):
                raise _not_one()
            max_shard_size = old.most
        if dry_run:
            tensors, asked = map(old.info, content_keys(old)), max_shard_size or 0
            size = bank_size(tensors, single_room(old), old.manifest, asked=asked, old=None)
            return ConvertReport(str(path), True, old.size, *size)
        room, most = single_room(old), max_shard_size or None
        with (
            bank_lock(path, wait=0.0, edits=False),
            copied(old, path, room, most, force=force, progress=progress) as writer,
        ):
            size = Size(writer.finish(old.manifest), writer.files)
        return ConvertReport(str(path), False, old.size, *size)


def joined(
    passing: Place, path: Place, force: bool, progress: Progress, report: Callable[[int], R]
) -> R:
    """Write a bank that workers made in shards as the one file that was asked for.

    `report` is called before the commit, with the bank's bytes.
    """
    with BankFile(passing) as whole:
        room = single_room(whole)
        with copied(whole, path, room, None, force=force, progress=progress) as writer:
            return report(writer.finish(whole.manifest))


def single_room(bank: BankFile) -> int:
    """Bytes before the data of a bank in one file, as whoever wrote it took them.

    A bank in shards says them; they are at least those that its tensors need.
    """
    if bank.store.layout is None:
        return bank.header.size
    return max(bank.store.layout.room, len(encode_header(bank.store.as_single(), METADATA)))
