"""What lies beside a bank's index and belongs to no bank: told, and removed where that is safe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from randes_cli.errors import UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.shard_folder import prune, unnamed
from randes_cli.files.bank.shards import shard_folder
from randes_cli.files.local.lock import bank_lock, edited_bank
from randes_cli.files.location import Place, RemotePath
from randes_cli.limits import LIMITS

if TYPE_CHECKING:
    from randes_cli.files.bank.stored_shards import Leftover


def unnamed_files(bank: BankFile) -> Sequence[Path | Leftover]:
    """Files among the shards of a bank (here or in a store) that its index does not name."""
    if isinstance(bank.path, RemotePath):
        from randes_cli.files.bank.stored_shards import unnamed_stored

        return unnamed_stored(bank.path, bank.store.shards) if bank.store.shards else []
    return [] if bank.far else unnamed(shard_folder(bank.path), bank.store.shards)


def check_age(hours: int | None, bank: Place, *, prune: bool) -> None:
    """Raise UsageError for an `older_than` that nothing is done with."""
    if hours is None:
        return
    LIMITS["older_than"].check("--older-than", hours)
    if not prune:
        raise UsageError("--older-than serves --prune")
    if not isinstance(bank, RemotePath):
        raise UsageError("--older-than serves a bank in a store; here the bank's lock tells")


def prune_files(bank: Place, older_than: int | None) -> int:
    """Remove files among a bank's shards that its index does not name; the bytes freed.

    Holds the write lock meanwhile: an edit under way has files there that no index names yet. A
    store has no locks: there only what is `older_than` so many hours goes (None: `PRUNE_HOURS`).
    Raises BankLocked, and what opening the bank raises.
    """
    path = edited_bank(bank)
    with bank_lock(path, wait=0.0), BankFile(path, lenient=True) as file:
        if isinstance(path, RemotePath):
            from randes_cli.files.bank.stored_shards import (
                PRUNE_HOURS,
                prune_leftovers,
                unnamed_stored,
            )

            most = PRUNE_HOURS if older_than is None else older_than
            found = unnamed_stored(path, file.store.shards)
            return prune_leftovers([one for one in found if one.is_older(most)])
        return prune(unnamed(shard_folder(path), file.store.shards), shard_folder(path))
