"""How many more tasks 8-bit superpositions have room for, and what is said of it."""

from __future__ import annotations

from collections import Counter

from randes_cli.errors import counted
from randes_cli.files.bank.manifest import Manifest


def room(manifest: Manifest) -> int | None:
    """Tasks like those at hand that still fit into the live groups; None where no sum has 8 bits.

    Steps of 8 bits are chosen for the bank's capacity: `add` to a fuller group may find that a sum
    overflows, which is refused before the bank changes.
    """
    live = [group for group in range(manifest.groups) if group not in manifest.sealed]
    narrow = manifest.bits == 8 and any(name not in manifest.widths for name in manifest.steps)
    if not (narrow and live):
        return None
    held = Counter(task.group for task in manifest.tasks)
    held.update(group for _, group in manifest.forgotten)
    return sum(max(0, manifest.capacity - held[group]) for group in live)


def room_words(left: int) -> str:
    """What superpositions of 8 bits have room for."""
    if left:
        return f"{counted(left, 'more task')} like these"
    return "no more: the next may be refused; pack anew with a larger --capacity, or --bits 16"
