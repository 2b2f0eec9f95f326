"""How large a new bank will be, about, before its tensors are laid out: by kinds of tensors."""

from __future__ import annotations

from collections import Counter

from randes_cli.build.draft import Draft
from randes_cli.build.steps import Steps
from randes_cli.files.bank.keys import sealed_tensors, sum_tensor
from randes_cli.plan import sealable, share_of, tensor_bytes
from randes_cli.specs import TensorInfo
from randes_cli.stats.stored import Cells


def estimate(draft: Draft, steps: Steps, cells: Cells, seal_bits: int | None = None) -> int:
    """Bytes of a new bank with the sums that have steps, about, at the most."""
    made = [*draft.fixed(cells), *(tensor for tensor, _ in draft.new_files())]
    made += (one.kept for one in draft.exact)
    text = 300 * len(draft.base.tensors) + 2**10 * len(draft.coming) + 2**12
    return tensor_bytes(made) + _sum_bytes(draft, steps, seal_bits) + text


def _sum_bytes(draft: Draft, steps: Steps, seal_bits: int | None) -> int:
    """Bytes of the sums of a new bank as it keeps them in the end."""
    kinds, total = Counter[tuple[tuple[int, ...], str, int, tuple[int, ...]]](), 0
    for unit, groups in draft.entered.items():
        if unit in steps.ready:
            for name in unit.names:
                _, dtype, shape = draft.base.tensors[name]
                kinds[(*groups,), dtype, steps.width(unit), shape] += 1
    for (entered, dtype, bits, shape), count in kinds.items():
        tensor = TensorInfo("", dtype, shape)
        for group in entered:
            share = share_of(tensor, group, draft.start.shares)
            if seal_bits is not None and sealable(tensor):
                sealed = sealed_tensors(group, tensor, seal_bits, share)
                total += count * tensor_bytes(sealed)
            else:
                total += count * sum_tensor(group, tensor, bits, share).nbytes
    return total
