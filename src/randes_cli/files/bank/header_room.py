"""The room for the header of a bank in one file, which is written last and comes first."""

from __future__ import annotations

from collections.abc import Iterable

from randes_cli.files.bank.entries import Entries
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, TensorInfo

#: What the header of a new bank says of it.
METADATA = {"format": FORMAT_NAME, "version": str(FORMAT_VERSION)}


def header_room(candidates: Iterable[TensorInfo]) -> int:
    """Bytes before the data of a bank in one file: enough for all of these tensors.

    The header comes first, and data are written before the last tensor is known.
    """
    candidates = list(candidates)
    sums = (t.name.split("/", 2)[1] for t in candidates if t.name.startswith("sum/"))
    return room_of_entries(Entries.of(candidates), len({*sums}))


def room_of_entries(candidates: Entries, groups: int) -> int:
    """`header_room` of tensors, which have superpositions of so many groups."""
    count, total = len(candidates.text), int(candidates.nbytes.sum()) + 2**40
    digits = 2 * len(str(total)) + 2
    padding = '"align/":{"dtype":"U8","shape":[7],"data_offsets":[,]},'
    entry = len(padding) + len(str(count)) + digits
    spare = (8 + 2 * max(0, groups - 1)) * entry
    most = candidates.header_bytes(METADATA) + count * digits + spare
    return -(-most // 8) * 8
