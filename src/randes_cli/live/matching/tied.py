"""Parameters that a model ties, of which a task has tensors apart: a head beside its embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from randes_cli.errors import MismatchError
from randes_cli.live.attaching import Reading, Slot
from randes_cli.live.lazy import Whole


def untied(slots: Sequence[Slot], reading: Reading) -> Iterator[Slot]:
    """Slots by the places that some task has tensors of its own for; others as they are.

    Where a task has none for a place, it has what the model ties it to. Raises MismatchError where
    the base has several, too.
    """
    for slot in slots:
        if not any(apart(slot, whole, reading) for whole in reading.wholes):
            yield slot
            continue
        _refuse(slot, reading.wholes[-1], reading, "the base")
        for place, name in zip(slot.places, slot.names, strict=True):
            others = (other for other in slot.names if other != name)
            yield Slot(slot.tensor, (place,), (name, *others))


def whole_ones(slots: Sequence[Slot], reading: Reading) -> Sequence[Slot]:
    """The slots, where one tensor will do for each. Raises MismatchError."""
    for slot in slots:
        _refuse(slot, reading.wholes[0], reading, f"task {reading.tasks[0]}")
    return slots


def _refuse(slot: Slot, whole: Whole, reading: Reading, who: str) -> None:
    names = apart(slot, whole, reading)
    if names:
        raise MismatchError(
            f"{who} has {' and '.join(names)} apart, and the model ties them: open it with "
            "from_bank, which does not"
        )


def apart(slot: Slot, whole: Whole, reading: Reading) -> list[str]:
    """The names of a slot that a task has different tensors for; none where it has one."""
    found: dict[tuple[str, ...], str] = {}
    retrieval = whole.retrieval
    for name in slot.names if len(slot.names) > 1 else ():
        parts = [whole.called(part.name) for part in reading.parts.get(name, ())]
        if parts and all(part in retrieval.tensors for part in parts):
            found.setdefault(tuple(map(retrieval.kept_name, parts)), name)
    return list(found.values()) if len(found) > 1 else []
