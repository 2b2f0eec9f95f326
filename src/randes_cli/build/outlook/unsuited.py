"""Why superposition is the wrong choice for what a bank holds, if it is: what pack and add say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randes_cli.build.build import Built
from randes_cli.build.draft import Draft
from randes_cli.build.inputs.participants import Participant
from randes_cli.core.unit import Rect
from randes_cli.files.checkpoint.shared import whole_of
from randes_cli.files.local.guard import reads_far
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.source import Sample, Source
from randes_cli.specs import ITEM_SIZE, BaseStorage, TensorInfo, table_bytes
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.unsuited import (
    as_adapters,
    checkpoint_bytes,
    nearer_base,
    saves_little,
    whole_gram,
)


def unsuited(draft: Draft, built: Built, size: int, cosine: float) -> tuple[str, ...]:
    """Sentences on a bank of `size` bytes that a draft made.

    `cosine` is what comes back on average. Of tasks that the bank had already, checkpoints count
    as they are recorded: of a merged adapter as the model that it made.
    """
    manifest, base = built.manifest, draft.base.tensors
    base_bytes = table_bytes(base) + sum(base[n].nbytes for n in draft.start.base.ties.values())
    given = sum(table_bytes(_as_given(one.source).tensors) for one in draft.coming)
    given += sum(checkpoint_bytes(task, base, base_bytes) for task in draft.start.tasks)
    told = [
        saves_little(manifest, size, base_bytes, given),
        nearer_base(manifest, whole_gram(built.statistics.grams), cosine),
    ]
    known = not draft.start.tasks and manifest.base.storage is not BaseStorage.zero
    if known and not reads_far():
        told.append(better_adapters(draft, built, size, base_bytes))
    return tuple(filter(None, told))


def _as_given(source: Source) -> Source:
    """What a task was read from: of an adapter that was merged its own tensors."""
    return source.adapter if isinstance(source, MergedAdapter) else whole_of(source)


#: Rows of a matrix that are looked at, and of how many matrices of a task.
_ROWS, _MATRICES = 128, 3
#: Most rank that is low, and the share of a delta's energy that it holds (rounding has the rest).
_LOW, _ENERGY = _ROWS // 4, 0.95


def better_adapters(draft: Draft, built: Built, bank_bytes: int, base_bytes: int) -> str | None:
    """A sentence where adapters of the deltas' rank are smaller than the bank."""
    base, rows = draft.base, norm_rows(draft.base.tensors)
    changed = dict(zip(built.statistics.indices, (built.statistics.known.norms > 0).T, strict=True))
    most, total = 0, 0
    for one in draft.coming:
        if isinstance(one.source, MergedAdapter):
            return None
        names = [name for name, there in zip(rows, changed[one.index], strict=True) if there]
        if not names:
            continue
        rank = _rank(base, one, names)
        if rank is None:
            return None
        most = max(most, rank)
        total += sum(_adapter_bytes(one.fit.superposed[name], rank) for name in names)
    return as_adapters(built.manifest, most, bank_bytes, base_bytes, total)


def _adapter_bytes(tensor: TensorInfo, rank: int) -> int:
    """Of two factors, or of the tensor where that is less (a vector)."""
    return min(rank * sum(tensor.matrix), tensor.elements) * ITEM_SIZE[tensor.dtype]


def _rank(base: Source, task: Participant, names: Sequence[str]) -> int | None:
    """The rank that holds nearly all of a task's delta; None where it is not low, or not known."""
    large = [name for name in names if min(base.tensors[name].matrix) >= _ROWS]
    if not large:
        return None
    step = max(1, len(large) // _MATRICES)
    ranks = [_rank_of(base, task, name) for name in large[::step][:_MATRICES]]
    return max(ranks) if max(ranks) <= _LOW else None


def _rank_of(base: Source, task: Participant, name: str) -> int:
    """The rank of the first rows of one delta, but for a little of its energy."""
    cols = base.tensors[name].matrix[1]
    delta = task.delta(Sample(base, [Rect(0, _ROWS, 0, cols, cols)]), name)
    if delta is None:
        return _ROWS
    block = delta.reshape(_ROWS, cols).astype(np.float64)
    energy = np.linalg.eigvalsh(block @ block.T)[::-1].cumsum()
    return int(np.searchsorted(energy, _ENERGY * energy[-1])) + 1
