"""The size of a bank before a byte of it is written: what it holds, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable

from randes_cli.files.bank_keys import MANIFEST
from randes_cli.files.bank_writer import header_room
from randes_cli.files.entries import Entries
from randes_cli.files.manifest import Manifest, encode
from randes_cli.files.seal_record import SealRecord
from randes_cli.specs import TensorInfo


def bank_size(
    candidates: Iterable[TensorInfo], tensors: Iterable[TensorInfo], manifest: Manifest
) -> int:
    """Bytes of a bank in one file of these tensors, in this order, and a manifest."""
    text = TensorInfo(MANIFEST, "U8", (len(encode(manifest)),))
    return header_room(candidates) + Entries.of([*tensors, text]).layout_bytes()


def default_capacity(held: Iterable[int]) -> int:
    """Tasks that 8 bits have room for where nobody said how many: twice the fullest group's."""
    return max(16, 2 * max(held))


def as_sealed_to(manifest: Manifest, bits: int) -> dict[int, SealRecord]:
    """Every group that holds a task, sealed."""
    return dict.fromkeys(sorted({task.group for task in manifest.tasks}), SealRecord(bits))


class TooLarge(Exception):
    """A bank would come to more bytes than it may have: so many."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def check_limit(size: int, limit: int | None) -> None:
    """Raise TooLarge where a bank may not have this size."""
    if limit is not None and size > limit:
        raise TooLarge(size)
