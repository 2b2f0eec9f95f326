"""How large a new bank will be, about, before its tensors are laid out: by kinds of tensors."""

from __future__ import annotations

from itertools import product

import numpy as np

from randes_cli.build.draft import Draft
from randes_cli.build.steps import Steps
from randes_cli.core.columns import columns
from randes_cli.files.bank.keys import sealed_tensors, sum_tensor
from randes_cli.plan import sealable, share_of, tensor_bytes
from randes_cli.specs import BaseStorage, table_bytes
from randes_cli.stats.stored import Cells


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
