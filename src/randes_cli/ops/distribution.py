"""Cosines between layers of one model and between models, one value a pair (paper Figure 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.prediction.cosines import cosines
from randes_cli.core.shuffle import group_by_type
from randes_cli.files.bank.file import BankFile
from randes_cli.files.source import Source
from randes_cli.limits import StrPath
from randes_cli.ops.originals import Original, Originals, open_originals
from randes_cli.plan import Rect, superposable
from randes_cli.specs import RunOptions, TensorInfo
from randes_cli.stats.stored import open_statistics
from randes_cli.workers import Progress, no_progress, run_jobs, thread_count

#: Layers of one type that are compared with each other, evenly spaced where there are more.
MOST_LAYERS = 64
#: Float32 elements that one thread holds at once, of all models and layers of a type together.
HELD = 2**22


@dataclass(frozen=True, slots=True)
class Distribution:
    """Pairwise cosines of deltas, one value a pair.

    Attributes:
        across: the same tensor of two models, as they are.
        during: the same two as they meet in retrieval; empty where not known.
        within: two layers of one type of one model; empty without the originals.
        measured: whether it comes from checkpoints rather than stored statistics.
        strange: tasks whose checkpoint is not the one that was packed, by its fingerprint.
    """

    across: tuple[float, ...]
    during: tuple[float, ...]
    within: tuple[float, ...]
    measured: bool
    strange: tuple[str, ...] = ()


def _pairs(gram: F64) -> list[float]:
    """Cosines above the diagonal between rows that are not zero."""
    there = np.flatnonzero(np.diag(gram) > 0)
    found = cosines(gram[np.ix_(there, there)])
    values: list[float] = found[np.triu_indices(len(there), 1)].tolist()
    return values


def stored_distribution(bank: BankFile) -> Distribution:
    """From the bank's Gram matrices: one value for each pair of tasks in each cell."""
    statistics = open_statistics(bank)
    kept = {name for names in _matrices(bank.manifest.base.tensors.values()) for name in names}
    cells = [n for n, (_, names) in enumerate(statistics.cells) if kept & set(names)]
    across = [value for n in cells for value in _pairs(statistics.grams[n, 0])]
    during = [value for n in cells for value in _pairs(statistics.grams[n, 1])]
    return Distribution(tuple(across), tuple(during), (), measured=False)


def _matrices(tensors: Iterable[TensorInfo]) -> list[list[str]]:
    """Names by type, of tensors with rows and columns; of all where there are none."""
    every = [tensor for tensor in tensors if superposable(tensor)]
    kept = [tensor for tensor in every if min(tensor.matrix) > 1] or every
    return list(group_by_type(kept).values())


def measured_distribution(
    bank: BankFile,
    originals: Originals,
    run: RunOptions,
    *,
    base: StrPath | None = None,
    progress: Progress = no_progress,
) -> Distribution:
    """From the checkpoints of tasks, streamed; `during` is the bank's own."""
    tensors = bank.manifest.base.tensors
    found: list[tuple[list[float], list[float]]] = []
    with open_originals(bank, originals, run, base) as (opened, tasks):

        def work(names: list[str]) -> int:
            found.append(_compare(opened, tasks, names, tensors[names[0]]))
            return sum(tensors[name].nbytes for name in names) * len(tasks)

        groups = _matrices(bank.manifest.base.tensors.values())
        run_jobs(
            groups,
            work,
            threads=thread_count(run.threads),
            phase="comparing",
            total=sum(tensors[n].nbytes for names in groups for n in names) * len(tasks),
            progress=progress,
        )
        strange = tuple(one.task.name for one in tasks if not one.is_packed(run, progress))
    across = sorted(value for pair in found for value in pair[0])
    within = sorted(value for pair in found for value in pair[1])
    during = stored_distribution(bank).during
    return Distribution(tuple(across), during, tuple(within), measured=True, strange=strange)


def _compare(
    base: Source | None, tasks: Sequence[Original], names: list[str], like: TensorInfo
) -> tuple[list[float], list[float]]:
    """Cosines across models and within models of one type of tensor."""
    if len(names) > MOST_LAYERS:
        names = [names[len(names) * n // MOST_LAYERS] for n in range(MOST_LAYERS)]
    layers, count = len(names), len(names) * len(tasks)
    rows, cols = like.matrix
    gram = np.zeros((count, count))
    for rect in Rect(0, rows, 0, cols, cols).split(max(1, HELD // count)):
        held = np.zeros((count, rect.elements), np.float32)
        for number, task in enumerate(tasks):
            for layer, name in enumerate(names):
                delta = task.delta(base, name, rect)
                if delta is not None:
                    held[number * layers + layer] = delta
        gram += (held @ held.T).astype(np.float64)
    across, within = [], []
    for layer in range(layers):
        across += _pairs(gram[layer::layers, layer::layers])
    for number in range(len(tasks)):
        own = slice(number * layers, (number + 1) * layers)
        within += _pairs(gram[own, own])
    return across, within
