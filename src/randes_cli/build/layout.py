"""The size of a bank before a byte of it is written: what it holds, in the order of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from randes_cli.errors import UsageError
from randes_cli.files.bank.manifest import Manifest, encode
from randes_cli.files.bank.records import SealRecord
from randes_cli.files.bank.sizes import Size, bank_bytes, parts_of
from randes_cli.plan import sealable, superposable
from randes_cli.specs import ITEM_SIZE, BaseStorage, TensorInfo


def bank_size(
    tensors: Iterable[TensorInfo],
    room: int,
    manifest: Manifest,
    *,
    asked: int | None,
    old: int | None,
) -> Size:
    """`bank_bytes` of a bank of these tensors, in this order, and a manifest."""
    text = len(encode(manifest))
    return bank_bytes(parts_of(tensors), room, text, asked=asked, old=old)


def default_bits(base: Iterable[TensorInfo], storage: BaseStorage, held: Collection[int]) -> int:
    """Bits of a live superposition where nobody said how many; `held` are the tasks by group.

    8 where most of the base's floating-point elements take two bytes each or fewer, for a sum of
    16 would be as large as the base, and where no task is alone in a group: what others leave in
    it hides the coarser rounding (docs/results.md). Factors of adapters get 16: errors multiply.
    """
    sizes = [(ITEM_SIZE[one.dtype], one.elements) for one in base if superposable(one)]
    narrow = sum(count for size, count in sizes if size <= 2)
    few = 2 * narrow > sum(count for _, count in sizes)
    hidden = min(held, default=0) > 1 and storage is not BaseStorage.zero
    return 8 if few and hidden else 16


def default_capacity(held: Iterable[int]) -> int:
    """Tasks that 8 bits have room for where nobody said how many: twice the fullest group's."""
    return max(16, 2 * max(held))


def as_sealed_to(manifest: Manifest, bits: int) -> dict[int, SealRecord]:
    """Every group that holds a task, sealed."""
    return dict.fromkeys(sorted({task.group for task in manifest.tasks}), SealRecord(bits))


def check_sealable(base: Collection[TensorInfo], bits: int) -> None:
    """Raise UsageError where no tensor of a base can be cut."""
    if base and not any(map(sealable, base)):
        raise UsageError(
            f"--bits {bits}: no tensor here is wide enough for the scales that fewer than 8 "
            "bits need; say --bits 8 or 16"
        )


class TooLarge(Exception):
    """A bank would come to more bytes than it may have: so many."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def check_limit(size: int, limit: int | None) -> None:
    """Raise TooLarge where a bank may not have this size."""
    if limit is not None and size > limit:
        raise TooLarge(size)
