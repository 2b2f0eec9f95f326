"""What a draft's superpositions are, as columns, and the room for them: in a header, on a disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product

import numpy as np

from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import closing_tensors
from randes_cli.build.jobs.exact import exact_tensors
from randes_cli.build.steps import Steps
from randes_cli.core.columns import columns, table_of
from randes_cli.files.bank.entries import Entries, header_room, room_of_entries
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import sealed_tensors, sum_key, sum_tensor
from randes_cli.plan import Unit, sealable, share_of, tensor_bytes
from randes_cli.specs import BaseStorage, Table, TensorInfo, table_bytes
from randes_cli.stats.stored import Cells


def sum_table(draft: Draft, group: int, units: Sequence[Unit], steps: Steps) -> Table:
    """A group's superpositions of units, as columns."""
    base, names = columns(draft.base.tensors), [*chain.from_iterable(u.names for u in units)]
    wide = np.array([steps.width(unit) == 16 for unit in units], np.int64)
    wide = np.repeat(wide, [len(unit.names) for unit in units])
    kinds = [
        sum_tensor(group, tensor, bits, share_of(tensor, group, draft.start.shares))[1:]
        for tensor in base.kinds
        for bits in (8, 16)
    ]
    kind_of = 2 * base.kind_of[base.at(names)] + wide
    return table_of([sum_key(group, name) for name in names], kinds, kind_of)


def new_sums(draft: Draft, units: Iterable[Unit], steps: Steps) -> Iterator[Table]:
    """The superpositions of a new bank, group by group."""
    units = list(units)
    for group in sorted({participant.group for participant in draft.coming}):
        some = [unit for unit in units if group in draft.entered.get(unit, ())]
        if some:
            yield sum_table(draft, group, some, steps)


def room_of(draft: Draft, steps: Steps, cells: Cells) -> int:
    """Bytes before the data of a bank in one file, whatever the passes show."""
    exact = [*draft.exact, *(exact_tensors(draft.base, draft.leaving) if draft.leaving else ())]
    last = [*(one.kept for one in exact), *closing_tensors()]
    files = [tensor for tensor, _ in draft.new_files()]
    if draft.old is not None:
        kept = [draft.forgotten()] if draft.start.forgotten else []
        return header_room([*_edited(draft, draft.old, steps), *files, *kept, *last])
    sums = list(new_sums(draft, draft.units, steps))
    beside = [*draft.beside(cells), *files]
    made = [Entries.of(draft.base_table), Entries.of(beside), *map(Entries.of, sums)]
    return room_of_entries(Entries.joined([*made, Entries.of(last)]), len(sums))


def _edited(draft: Draft, old: BankFile, steps: Steps) -> Iterator[TensorInfo]:
    """The old bank's tensors, and every superposition that may follow."""
    yield from old.store.as_single()
    freed = old.manifest.sealed.keys() - draft.start.sealed.keys()
    for group, unit in draft.places(steps):
        if group not in freed or group in draft.entered.get(unit, ()):
            yield from draft.sums((group, unit), 16)


def estimate(draft: Draft, steps: Steps, cells: Cells, seal_bits: int | None = None) -> int:
    """Bytes of a new bank with the sums that have steps, about, at the most."""
    made = [*draft.beside(cells), *(tensor for tensor, _ in draft.new_files())]
    made += (one.kept for one in draft.exact)
    base = draft.base.tensors
    text = 300 * len(base) + 2**10 * len(draft.coming) + 2**12
    stored = table_bytes(base) if draft.start.base.storage is BaseStorage.embed else 0
    return stored + tensor_bytes(made) + _sum_bytes(draft, steps, seal_bits) + text


def _sum_bytes(draft: Draft, steps: Steps, seal_bits: int | None) -> int:
    """Bytes of the sums of a new bank as it keeps them in the end."""
    alike: dict[tuple[int, int], tuple[list[int], list[str]]] = {}
    for unit, groups in draft.entered.items():
        step = steps.ready.get(unit)
        if step is not None:
            alike.setdefault((id(groups), step.bits), (groups, []))[1].extend(unit.names)
    total, base = 0, columns(draft.base.tensors)
    for (_, bits), (groups, names) in alike.items():
        counts = np.bincount(base.kind_of[base.at(names)], minlength=len(base.kinds)).tolist()
        for (tensor, count), group in product(zip(base.kinds, counts, strict=True), groups):
            share = share_of(tensor, group, draft.start.shares)
            if seal_bits is not None and sealable(tensor):
                sealed = sealed_tensors(group, tensor, seal_bits, share)
                total += count * tensor_bytes(sealed)
            else:
                total += count * sum_tensor(group, tensor, bits, share).nbytes
    return total
