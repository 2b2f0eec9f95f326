"""The deltas that stay in sums without a record: what they add to the noise of all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.files.manifest import Manifest
from randes_cli.stats.lengths import Known, shuffled_rows

#: Index and group of a task that is forgotten.
Pair = tuple[int, int]


def remembered(known: Known, old: Manifest, forgotten: Sequence[Pair]) -> F64 | None:
    """‖q‖² of forgotten tasks at every position, forgotten × tensors, as ``stats/forgotten``.

    `known` are the lengths of `old`, of which some tasks are forgotten now. None where those of
    others, which were forgotten before, are unknown, or where none is.
    """
    if not forgotten or (old.forgotten and known.forgotten is None):
        return None
    stored = () if known.forgotten is None else known.forgotten
    rows: dict[int, F64] = {
        index: row for (index, _), row in zip(old.forgotten, stored, strict=True)
    }
    tasks = [(task.seed, task.index) for task in old.tasks]
    order = shuffled_rows(old.base.tensors.values(), old.transform, tasks)
    for column, (_, index) in enumerate(tasks):
        row = known.rounded[1][:, column]
        rows.setdefault(index, row if order is None else row[order[:, column]])
    found = [rows[index] for index, _ in forgotten]
    return np.array(found).reshape(len(forgotten), len(known.norms))
