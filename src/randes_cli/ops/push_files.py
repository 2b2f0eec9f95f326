"""The files of a bank that go to the Hub: as they are, or cut into shards that it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from randes_cli.build.convert import convert
from randes_cli.files.atomic import TEMPORARY
from randes_cli.files.bank import BankFile
from randes_cli.files.shards import is_shard_file, most_bytes, shard_file, shard_folder

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi


@contextlib.contextmanager
def bank_to_push(bank: Path, most: int | None) -> Iterator[Path]:
    """The bank as it is uploaded: itself, or a copy beside it in shards, which goes afterwards.

    A bank in one file that is larger than the Hub takes is cut, too.
    """
    with BankFile(bank) as file:
        before, cut = file.most, most_bytes(most, file.size, file.most)
    if cut is None or cut == before:
        yield bank
        return
    with TemporaryDirectory(dir=bank.parent, prefix=f".{bank.name}.", suffix=TEMPORARY) as made:
        copy = Path(made) / bank.name
        convert(bank, copy, max_shard_size=cut)
        yield copy


def bank_changes(
    api: HfApi, repo: str, revision: str | None, bank: Path, name: str
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What a commit does: the index and its shards come, shards that it does not name go."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    with BankFile(bank) as file:
        shards = [shard_file(one) for one in file.store.shards]
    folder, place = shard_folder(bank), f"{name}.d"
    made: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationAdd(name, bank)]
    made += [CommitOperationAdd(f"{place}/{shard}", folder / shard) for shard in shards]
    for entry in api.list_repo_tree(repo, recursive=True, revision=revision):
        parent, _, file_name = entry.path.rpartition("/")
        old = isinstance(entry, RepoFile) and parent == place and is_shard_file(file_name)
        if old and file_name not in shards:
            made.append(CommitOperationDelete(entry.path))
    return made
