"""`inspect`: what a bank holds and what to expect of it, from its statistics alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.shuffle import layer_numbers, layer_type
from randes_cli.core.stats import cosines
from randes_cli.files.bank import BankFile
from randes_cli.ops.reports import TaskSummary
from randes_cli.ops.statistics import (
    Statistics,
    norm_rows,
    predictions,
    stored_statistics,
    summaries,
)
from randes_cli.plan import tensor_bytes
from randes_cli.specs import TensorInfo

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """The tensors of one type or one layer.

    Attributes:
        share: of all delta energy, 0 to 1.
        predicted_cosine: mean over the tasks that changed something here.
        before: mean |cosine| between different tasks' deltas as they are.
        during: the same as they meet in retrieval; both None where only coarser is stored.
    """

    name: str
    tensors: int
    elements: int
    share: float
    predicted_cosine: float
    before: float | None
    during: float | None


@dataclass(frozen=True, slots=True)
class BankReport:
    """What `inspect` shows. Sizes are bytes; matrices are T × T in the order of `tasks`.

    Attributes:
        separate_bytes: the tasks' checkpoints together.
        cosine_before: pairwise cosines of the deltas as they are.
        cosine_during: the same as they meet in every retrieval.
        estimated: pairs of task indices whose cosines are estimates.
    """

    bank: str
    bank_bytes: int
    base_bytes: int
    sum_bytes: int
    own_bytes: int
    separate_bytes: int
    transform: str
    shuffle: str
    signs: str
    targets: str
    every: int
    rest: str
    bits: int
    seed: int
    capacity: int
    next_index: int
    base_source: str
    base_fingerprint: str
    base_storage: str
    base_tensors: int
    forgotten: int
    tasks: tuple[TaskSummary, ...]
    sources: dict[str, str]
    cosine_before: tuple[tuple[float, ...], ...]
    cosine_during: tuple[tuple[float, ...], ...]
    estimated: tuple[tuple[int, int], ...]
    rows: tuple[GroupRow, ...]

    @property
    def ratio_to_base(self) -> float:
        """Bank bytes for each byte of the base."""
        return self.bank_bytes / self.base_bytes if self.base_bytes else float("inf")

    @property
    def ratio_to_separate(self) -> float:
        """Bank bytes for each byte of separate checkpoints."""
        return self.bank_bytes / self.separate_bytes if self.separate_bytes else float("inf")


def _layer(name: str) -> str:
    numbers = layer_numbers(name)
    return f"layer {numbers[0]}" if numbers else "outside the layers"


#: How `--by` names the rows of its table.
GROUPINGS: dict[str, Callable[[str], str]] = {"type": layer_type, "layer": _layer}


def _matrix(gram: F64) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in cosines(gram))


def _off_diagonal(gram: F64) -> float:
    """Mean |cosine| between different tasks that both changed something."""
    found = cosines(gram)
    there = np.diag(gram) > 0
    pairs = np.outer(there, there) & ~np.eye(len(gram), dtype=bool)
    return float(np.abs(found[pairs]).mean()) if pairs.any() else 0.0


def _group_rows(
    tensors: Sequence[TensorInfo], statistics: Statistics, key: Callable[[str], str]
) -> tuple[GroupRow, ...]:
    sizes = {tensor.name: tensor.elements for tensor in tensors}
    groups: dict[str, list[int]] = {}
    names = norm_rows(tensors)
    for row, name in enumerate(names):
        groups.setdefault(key(name), []).append(row)
    total = float(statistics.norms.sum()) or 1.0
    cells: dict[str, list[int]] = {}
    mixed = set()
    for number, (_, members) in enumerate(statistics.cells):
        keys = {key(name) for name in members}
        mixed |= keys if len(keys) > 1 else set()
        cells.setdefault(keys.pop(), []).append(number)
    made = []
    for name, rows in groups.items():
        norms = statistics.norms[rows]
        if not norms.sum():
            continue
        grams = None if name in mixed else statistics.grams[cells.get(name, [])].sum(axis=0)
        changed = np.flatnonzero(norms.sum(axis=0) > 0)
        cosine = predictions([names[r] for r in rows], norms, (), None)
        made.append(
            GroupRow(
                name=name,
                tensors=len(rows),
                elements=sum(sizes[names[row]] for row in rows),
                share=float(norms.sum()) / total,
                predicted_cosine=float(np.mean([cosine[task] for task in changed])),
                before=None if grams is None else _off_diagonal(grams[0]),
                during=None if grams is None else _off_diagonal(grams[1]),
            )
        )
    return tuple(made)


def describe(bank: BankFile, *, by: str = "type") -> BankReport:
    """What an open bank holds; `by` is ``type`` or ``layer``. Reads statistics only."""
    manifest, statistics = bank.manifest, stored_statistics(bank)
    transform = manifest.transform
    tensors = bank.header.tensors
    base = {tensor.name: tensor for tensor in manifest.base.tensors}
    separate = 0
    for task in manifest.tasks:
        kept = (t for n, t in base.items() if n not in task.missing and n not in task.own)
        separate += sum(task.tensor(tensor).nbytes for tensor in kept)
        separate += tensor_bytes(task.own.values())
    grams = statistics.grams.sum(axis=0)

    def held(prefix: str) -> int:
        return sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith(prefix))

    return BankReport(
        bank=str(bank.path),
        bank_bytes=bank.header.file_size,
        base_bytes=tensor_bytes(base.values()),
        sum_bytes=held("sum/"),
        own_bytes=held("own/"),
        separate_bytes=separate,
        transform=transform.preset or "custom",
        shuffle=transform.shuffle.value,
        signs=transform.signs.value,
        targets=transform.targets,
        every=transform.every,
        rest=transform.rest.value,
        bits=manifest.bits,
        seed=manifest.seed,
        capacity=manifest.capacity,
        next_index=manifest.next_index,
        base_source=manifest.base.source,
        base_fingerprint=manifest.base.fingerprint,
        base_storage=manifest.base.storage.value,
        base_tensors=len(base),
        forgotten=len(manifest.forgotten),
        tasks=summaries(manifest, statistics),
        sources={task.name: task.source for task in manifest.tasks},
        cosine_before=_matrix(grams[0]),
        cosine_during=_matrix(grams[1]),
        estimated=tuple(sorted(statistics.estimated)),
        rows=_group_rows(manifest.base.tensors, statistics, GROUPINGS[by]),
    )
