"""Where superposition is the wrong choice for these very tasks, and what is better."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import TaskRecord
from randes_cli.plan import tensor_bytes
from randes_cli.specs import BaseStorage, TensorInfo
from randes_cli.stats.grams import GramTable, blocks

#: A bank of more than this part of its inputs saves too little for what it costs.
_LITTLE = 0.9
#: Deltas from one of the tasks are told of where they are at most so long as those from the base.
_SHORT = 0.5
#: Mean cosine from which deltas come back so near that their length does not matter.
_NEAR = 0.9


def saves_little(manifest: Manifest, bank: int, base: int, tasks: int) -> str | None:
    """A sentence where a bank takes about what it is made of takes, which is exact.

    All are bytes: of the bank, of its base, and of the tasks as they were given.
    """
    storage = manifest.base.storage
    bank += base * (storage is BaseStorage.reference)
    if storage is BaseStorage.zero or bank <= _LITTLE * (base + tasks):
        return None
    how_much = "little" if bank < base + tasks else "nothing"
    as_given, packed = ((base + tasks) / max(1, base), bank / max(1, base))
    return (
        f"superposition saves {how_much} here: base and tasks as they are take {as_given:.2f} × "
        f"the base, and are exact, the bank with its base {packed:.2f} ×; more tasks, or fewer "
        "--bits, would save"
    )


def as_adapters(manifest: Manifest, rank: int, bank: int, base: int, tasks: int) -> str | None:
    """A sentence where adapters of this rank, of so many bytes in all, are smaller than a bank."""
    bank += base * (manifest.base.storage is BaseStorage.reference)
    if rank == 0 or base + tasks >= bank:
        return None
    apart, packed = ((base + tasks) / max(1, base), bank / max(1, base))
    return (
        f"these deltas have a rank of about {rank}, as merged adapters have: as LoRA adapters they "
        f"and the base would take about {apart:.2f} × the base, nearly exact, the bank with its "
        f"base {packed:.2f} ×"
    )


def checkpoint_bytes(task: TaskRecord, base: Mapping[str, TensorInfo], whole: int) -> int:
    """Bytes of a task's checkpoint by itself, copies among them; `whole` are the base's."""
    kept = set(task.ties.values())
    size = {n: (task.own.get(n) or task.tensor(base[n])).nbytes for n in kept}
    own = tensor_bytes(task.own.values()) + sum(size[n] for n in task.ties.values())
    own -= sum(size[n] for n in kept & task.missing)  # there under another name alone
    gone = [base[name].nbytes for name in (task.absent | set(task.own)) & base.keys()]
    if task.dtype is None and not task.shapes and not task.dtypes:
        return whole - sum(gone) + own
    rest = (t for n, t in base.items() if n not in task.absent and n not in task.own)
    return sum(task.tensor(tensor).nbytes for tensor in rest) + own


def whole_gram(table: GramTable) -> F64:
    """The Gram matrix of the deltas as they are, over all tensors."""
    made = np.zeros(table.shape[2:])
    for _, some in blocks(table):
        made += some[:, 0].sum(axis=0)
    return made


def nearer_base(manifest: Manifest, gram: F64, cosine: float) -> str | None:
    """A sentence where one of the tasks would be a better base, for the others are near to it.

    `gram` is that of all deltas, `cosine` what comes back on average.
    """
    count = len(manifest.tasks)
    if count < 2 or cosine >= _NEAR or manifest.base.storage is BaseStorage.zero:
        return None
    energy = np.diag(gram)
    apart = np.maximum(energy[:, None] + energy[None] - 2 * gram, 0.0).sum(axis=0)
    best = int(apart.argmin())
    before, after = energy.mean(), apart[best] / (count - 1)
    if not 0 < after <= _SHORT**2 * before:
        return None
    about = "about " if manifest.estimated else ""
    return (
        f"these tasks are alike: packed with {manifest.tasks[best].name} as their base the deltas, "
        f"and their noise, would be {about}{sqrt(before / after):.1f} times shorter (if nobody "
        "needs the base itself)"
    )
