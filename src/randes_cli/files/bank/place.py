"""What to say of a place where a bank should be and none is."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from randes_cli.errors import CheckpointError, RandesError, counted, printable, some_of
from randes_cli.files.bank.folder import bank_of_shards, is_shard_folder
from randes_cli.files.local.disk import entries
from randes_cli.files.local.system import is_folder
from randes_cli.files.location import Place
from randes_cli.files.weight_names import weight_files

E = TypeVar("E", bound=RandesError)

#: What to say where a checkpoint is named in place of a bank.
BANK_FIRST = "the bank comes first; randes pack makes one"
#: Names that a line lists.
_MOST_NAMES = 5


def at(path: Place, error: E) -> E:
    """The error with the bank's path in front, once."""
    text, front = str(error), printable(f"{path}: ")
    return error if text.startswith(front) else type(error)(f"{front}{text}")


def refuse_folder(path: Place) -> None:
    """Raise CheckpointError where a folder is named in place of a bank, with what is in it."""
    if isinstance(path, Path) and is_folder(path):
        raise CheckpointError(f"{path}: {_folder(path)}")


def _folder(path: Path) -> str:
    if is_shard_folder(path):
        return bank_of_shards(path)
    banks = [str(path / one.name) for one in entries(path) if one.suffix == ".randes"]
    if len(banks) == 1:
        return f"a folder; the bank in it is {banks[0]}"
    if banks:
        some = some_of(banks, _MOST_NAMES)
        return f"a folder of {counted(len(banks), 'bank')}; name one of them: {some}"
    if weight_files(path):
        return f"the folder of a checkpoint, not a bank ({BANK_FIRST})"
    return "a folder, and no bank is in it"
