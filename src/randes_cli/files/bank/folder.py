"""The folder beside a bank's index that holds its shards, where a model is looked for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from randes_cli.errors import RandesError
from randes_cli.files.bank.shards import SHARD_METADATA, is_shard_file
from randes_cli.files.weight_file import TensorFile

#: What to do where a bank is named in place of a checkpoint.
UNPACK = "no checkpoint: unpack the task that you mean"


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder holds shards of a bank, by their names and by what the first says of itself.

    Of folders that lie elsewhere the names are at hand, as empty files: those alone tell.
    """
    with suppress(OSError):
        names = (path for path in folder.iterdir() if is_shard_file(path.name))
        first = min(names, default=None)
        if first is not None:
            only_named = folder.absolute().suffix == ".d" and not first.stat().st_size
            return only_named or _is_shard(first)
    return False


def _is_shard(path: Path) -> bool:
    with suppress(RandesError):
        file = TensorFile(path)
        file.close()
        return file.header.metadata == SHARD_METADATA
    return False


def bank_of_shards(folder: Path) -> str:
    """What a folder of shards is, and where the bank is that they belong to."""
    whole = folder.absolute()
    index = whole.with_suffix("")
    if whole.suffix != ".d":
        return "the shards of a bank without the bank's own file, which was beside them"
    if index.is_file():
        there = folder.with_name(index.name) if folder.name else index
        return f"the folder of a bank's shards; the bank is {there}"
    return f"the folder of a bank's shards; the bank itself, {index.name}, is not beside it"
