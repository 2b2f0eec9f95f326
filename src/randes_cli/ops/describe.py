"""`inspect`: what a bank holds and what to expect of it, from its statistics alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.prediction.cosines import cosines
from randes_cli.core.prediction.formula import Moments
from randes_cli.core.prediction.verdict import hedged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import kind_bytes, own_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.reports import Alternative, TaskSummary
from randes_cli.specs import BaseStorage, TensorInfo, once, table_bytes
from randes_cli.stats.alternatives import alternatives, saving, sealing, unsure
from randes_cli.stats.breakdown import Breakdown, GroupRow
from randes_cli.stats.lengths import sealed_bits
from randes_cli.stats.room import room
from randes_cli.stats.stored import open_statistics
from randes_cli.stats.summaries import bank_summaries, mean_cosine, predictable
from randes_cli.stats.unsuited import checkpoint_bytes, nearer_base, saves_little


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """What else is known of a task; sizes are bytes.

    Attributes:
        checkpoint_bytes: of its checkpoint by itself.
        own_bytes: of the tensors that the bank keeps exactly for it.
        norm: ‖Δ‖ over all superposed tensors.
        predicted_error: ‖λ Δ̂ − Δ‖ / ‖Δ‖ at the task's λ.
        nearest: the task whose delta is most alike, with their cosine; None for one alone.
        tuning: (λ, score) pairs that `tune` measured, by ascending λ.
    """

    name: str
    group: int
    source: str
    fingerprint: str
    dtype: str | None
    checkpoint_bytes: int
    own_bytes: int
    norm: float
    predicted_error: float
    nearest: str | None
    nearest_cosine: float | None
    tuning: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class BankReport:
    """What `inspect` shows. Sizes are bytes; matrices are T × T in the order of `tasks`.

    Attributes:
        separate_bytes: the tasks' checkpoints together.
        cosine_before: pairwise cosines of the deltas as they are.
        cosine_during: the same as they meet in every retrieval.
        details: more of each task, in the order of `tasks`.
        estimated: pairs of task indices whose cosines are estimates.
        by: what `rows` stand for, ``type`` or ``layer``.
        alternatives: the same tasks with other bits, groups and shares.
        unsure: a sentence where only `tune` knows λ, for measured families differ.
        saving: the command that makes the bank smaller and loses next to nothing, if any does.
        unsuited: why superposition is the wrong choice for these tasks, if it is.
        room: how many more tasks like these 8-bit superpositions have room for, if there are any.
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
    groups: int
    sealed: dict[int, int]
    shares: dict[int, int]
    seed: int
    capacity: int
    next_index: int
    base_source: str
    base_fingerprint: str
    base_storage: str
    base_tensors: int
    forgotten: int
    tasks: tuple[TaskSummary, ...]
    details: tuple[TaskDetail, ...]
    cosine_before: tuple[tuple[float, ...], ...]
    cosine_during: tuple[tuple[float, ...], ...]
    estimated: tuple[tuple[int, int], ...]
    by: str
    rows: tuple[GroupRow, ...]
    alternatives: tuple[Alternative, ...]
    unsure: str | None
    saving: str | None
    unsuited: tuple[str, ...]
    room: int | None

    @property
    def ratio_to_base(self) -> float | None:
        """Bank bytes for each byte of the base; None for a base of no bytes, and for adapters.

        What adapters that stay adapters are superposed from is no model, but zeros in their shapes.
        """
        known = self.base_bytes and self.base_storage != BaseStorage.zero.value
        return self.bank_bytes / self.base_bytes if known else None

    @property
    def base_name(self) -> str:
        """What to call the base."""
        return self.base_source or "a base that the adapters do not name"

    @property
    def ratio_to_separate(self) -> float | None:
        """Bank bytes for each byte of the tasks' checkpoints; None where there are none."""
        return self.bank_bytes / self.separate_bytes if self.separate_bytes else None


def _matrix(gram: F64) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in cosines(gram).tolist())


def _own_bytes(bank: BankFile, task: TaskRecord) -> int:
    keys = (own_key(task.name, name) for name in [*task.own, *task.shapes])
    return sum(bank.info(key).nbytes for key in keys if key in bank)


def _details(
    bank: BankFile,
    base: Mapping[str, TensorInfo],
    found: Moments,
    cosine: F64,
    coefficients: Sequence[float],
) -> tuple[TaskDetail, ...]:
    tasks = bank.manifest.tasks
    curves = bank.manifest.tuning
    whole = table_bytes(base)
    errors = found.error(np.array(coefficients))
    apart = np.abs(cosine) - 2 * np.eye(len(tasks))
    made = []
    for column, task in enumerate(tasks):
        near = int(apart[column].argmax()) if len(tasks) > 1 else None
        made.append(
            TaskDetail(
                name=task.name,
                group=task.group,
                source=task.source,
                fingerprint=task.fingerprint,
                dtype=task.dtype,
                checkpoint_bytes=checkpoint_bytes(task, base, whole),
                own_bytes=_own_bytes(bank, task),
                norm=float(np.sqrt(found.own[column])),
                predicted_error=float(errors[column]),
                nearest=None if near is None else tasks[near].name,
                nearest_cosine=None if near is None else float(cosine[column, near]),
                tuning=curves.get(task.name, ()),
            )
        )
    return tuple(made)


def describe_task(bank: BankFile, name: str, *, by: str = "type") -> tuple[GroupRow, ...]:
    """One task by type or layer of its tensors. Raises MissingError for an unknown task."""
    task = bank.task(name)
    cut = Breakdown(bank, open_statistics(bank), by)
    column = cut.statistics.indices.index(task.index)
    rows = (cut.task_row(group, column) for group in cut.rows)
    return tuple(row for row in rows if row is not None)


def describe(bank: BankFile, *, by: str = "type") -> BankReport:
    """What an open bank holds; `by` is ``type`` or ``layer``. Reads statistics only."""
    manifest, statistics = bank.manifest, open_statistics(bank)
    transform = manifest.transform
    base = manifest.base.tensors
    cut = Breakdown(bank, statistics, by)
    grams, _ = cut.grams
    found = cut.whole()
    tasks = bank_summaries(bank, statistics, cut.found)
    choices = alternatives(bank, statistics, tasks) if predictable(manifest) else ()
    saves = not manifest.sealed and sealing(choices) is not None
    if saves:
        from randes_cli.build.seal.seal import with_exact_saving  # commands start sooner

        choices = with_exact_saving(bank, choices)
    details = _details(bank, base, found, cosines(grams[0]), [t.coefficient for t in tasks])
    apart = sum(detail.checkpoint_bytes for detail in details)
    whole = table_bytes(base) + sum(base[n].nbytes for n in manifest.base.ties.values())
    unsuited = (
        saves_little(manifest, bank.size, whole, apart),
        nearer_base(manifest, grams[0], mean_cosine(tasks)),
    )
    held = once(kind_bytes, bank.header.tensors)
    return BankReport(
        bank=str(bank.path),
        bank_bytes=bank.size,
        base_bytes=whole,
        sum_bytes=held.get("sum", 0) + held.get("scale", 0),
        own_bytes=held.get("own", 0),
        separate_bytes=apart,
        transform=transform.preset or "custom",
        shuffle=transform.shuffle.value,
        signs=transform.signs.value,
        targets=transform.targets,
        every=transform.every,
        rest=transform.rest.value,
        bits=manifest.bits,
        groups=manifest.groups,
        sealed=sealed_bits(manifest),
        shares=dict(manifest.shares),
        seed=manifest.seed,
        capacity=manifest.capacity,
        next_index=manifest.next_index,
        base_source=manifest.base.source,
        base_fingerprint=manifest.base.fingerprint,
        base_storage=manifest.base.storage.value,
        base_tensors=len(base),
        forgotten=len(manifest.forgotten),
        tasks=tasks,
        details=details,
        cosine_before=_matrix(grams[0]),
        cosine_during=_matrix(grams[1]),
        estimated=tuple(sorted(statistics.estimated)),
        by=by,
        rows=tuple(cut.row(name) for name in cut.rows),
        alternatives=choices,
        unsure=unsure(bank, statistics) if choices else None,
        saving=hedged(saving(choices, str(bank.path), table_bytes(base)), tasks) if saves else None,
        unsuited=tuple(filter(None, unsuited)),
        room=room(manifest),
    )
