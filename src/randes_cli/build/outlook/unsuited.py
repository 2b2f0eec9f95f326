"""Why superposition is the wrong choice for what a bank holds, if it is: what pack and add say."""

from __future__ import annotations

from randes_cli.build.build import Built
from randes_cli.build.draft import Draft
from randes_cli.build.outlook.low_rank import better_adapters
from randes_cli.files.checkpoint.shared import whole_of
from randes_cli.files.local.guard import reads_far
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.source import Source
from randes_cli.specs import BaseStorage, table_bytes
from randes_cli.stats.unsuited import checkpoint_bytes, nearer_base, saves_little, whole_gram


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
