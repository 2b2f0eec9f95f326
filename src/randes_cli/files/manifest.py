"""The manifest: everything that retrieval needs besides the tensors, as JSON.

`docs/bank-format.md` describes each field; `manifest_reader` reads them. What is unknown and
optional survives a rewrite in `extra`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, BaseStorage, TensorInfo, Transform

#: How the codes and scales of a sealed group lie in the bank; `docs/sealed.md` has the bytes.
SEAL_LAYOUT = "levels/1"


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """The base model: `tensors` are its names, dtypes and shapes.

    `files` are its side files: content digest (of ``files/<digest>``) by name. `layout`, `left_out`
    and `pickle` are as in a task's record.
    """

    source: str
    fingerprint: str
    storage: BaseStorage
    metadata: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    pickle: str | None = None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task. Its tensors are the base's, but for the differences listed here.

    Attributes:
        dtype: the dtype of its superposed tensors where it is not the base's.
        unchanged: tensors that equal the base's (resized ones: in the rows that both have).
        missing: the base's tensors that the task lacks.
        own: tensors kept exactly, by name.
        shapes: shapes of resized embeddings, by name; rows past the base's are own tensors.
        dtypes: dtypes of single tensors, where neither `dtype` nor the base's.
        coefficient: λ that `tune` chose, or None.
        prefix: (the task's, the bank's) beginning of names: a tensor that the bank calls
            ``<bank's><rest>`` is ``<task's><rest>`` in the checkpoint.
        unprefixed: the base's names that the task uses as they are in spite of `prefix`.
        layout: weight file by component (see `Checkpoint`); empty for a bare file.
        files: side files: content digest (of ``files/<digest>``) by name.
        left_out: the folder's other files, each with the reason why it is not in the bank.
        pickle: where in its pickle the tensors were (``state_dict``), None where it was none.
    """

    name: str
    index: int
    seed: int
    group: int
    source: str
    fingerprint: str
    metadata: Mapping[str, str]
    dtype: str | None = None
    unchanged: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    own: Mapping[str, TensorInfo] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    coefficient: float | None = None
    prefix: tuple[str, str] = ("", "")
    unprefixed: frozenset[str] = frozenset()
    layout: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    pickle: str | None = None

    def output_name(self, name: str) -> str:
        """The task's own name of a tensor that the base has under `name`."""
        theirs, ours = self.prefix
        if theirs == ours or name in self.unprefixed or not name.startswith(ours):
            return name
        return theirs + name[len(ours) :]

    def tensor(self, base: TensorInfo) -> TensorInfo:
        """The task's tensor of this name, which it has and does not keep as its own."""
        dtype = self.dtypes.get(base.name, self.dtype or base.dtype)
        return TensorInfo(base.name, dtype, self.shapes.get(base.name, base.shape))


@dataclass(frozen=True, slots=True)
class SealRecord:
    """A group whose superposition was cut to `bits`; it is read-only."""

    bits: int
    layout: str = SEAL_LAYOUT


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bank's manifest.

    Attributes:
        bits: width of a new superposition.
        capacity: tasks that an 8-bit superposition has room for.
        next_index: the index that the next added task gets.
        steps: step exponents by tensor; kept when a superposition goes, so that it returns alike.
        widths: bits of the superpositions that are not `bits` wide, by tensor; kept likewise.
        forgotten: (index, group) of tasks whose deltas stay in a superposition without a record.
        cells: the tensors that each pair of Gram matrices in ``stats/gram`` sums over.
        estimated: pairs of task indices whose cosines are estimates.
        sealed: the groups that are read-only, cut to few bits.
        tuning: the (λ, score) pairs that `tune` measured, by task.
        extra: unknown optional fields, kept as they are.
    """

    transform: Transform
    bits: int
    seed: int
    capacity: int
    next_index: int
    base: BaseRecord
    tasks: tuple[TaskRecord, ...]
    steps: Mapping[str, int]
    widths: Mapping[str, int] = field(default_factory=dict)
    groups: int = 1
    forgotten: tuple[tuple[int, int], ...] = ()
    cells: tuple[tuple[str, tuple[str, ...]], ...] = ()
    estimated: frozenset[tuple[int, int]] = frozenset()
    features: tuple[str, ...] = ("superposition",)
    sealed: Mapping[int, SealRecord] = field(default_factory=dict)
    tuning: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def with_tasks(self, tasks: Iterable[TaskRecord]) -> Manifest:
        """The same with these tasks, in the order of their indices."""
        ordered = tuple(sorted(tasks, key=lambda task: task.index))
        names = {task.name for task in ordered}
        tuning = {name: curve for name, curve in self.tuning.items() if name in names}
        return replace(self, tasks=ordered, tuning=tuning)

    def with_sealed(self, sealed: Mapping[int, SealRecord]) -> Manifest:
        """The same with these read-only groups, and the feature that they require."""
        features = tuple(name for name in self.features if name != "sealed")
        return replace(
            self,
            sealed=dict(sorted(sealed.items())),
            features=features + ("sealed",) * bool(sealed),
        )


def _task_json(task: TaskRecord) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": task.name,
        "index": task.index,
        "seed": task.seed,
        "group": task.group,
        "source": task.source,
        "fingerprint": task.fingerprint,
        "metadata": dict(sorted(task.metadata.items())),
        "unchanged": sorted(task.unchanged),
        "missing": sorted(task.missing),
        "own": {n: [t.dtype, list(t.shape)] for n, t in sorted(task.own.items())},
        "shapes": {name: list(shape) for name, shape in sorted(task.shapes.items())},
        "dtypes": dict(sorted(task.dtypes.items())),
    }
    if task.dtype is not None:
        made["dtype"] = task.dtype
    if task.prefix != ("", ""):
        made["prefix"] = list(task.prefix)
        made["unprefixed"] = sorted(task.unprefixed)
    if task.layout:
        made["layout"] = dict(task.layout)
    if task.files:
        made["files"] = dict(sorted(task.files.items()))
    if task.coefficient is not None:
        made["coefficient"] = task.coefficient
    return made | _origin(task)


def _origin(record: BaseRecord | TaskRecord) -> dict[str, Any]:
    """Optional fields of where a record came from that base and tasks share."""
    made: dict[str, Any] = {}
    if record.left_out:
        made["left_out"] = dict(sorted(record.left_out.items()))
    if record.pickle is not None:
        made["pickle"] = record.pickle
    return made


def _optional(manifest: Manifest) -> dict[str, Any]:
    """Fields that most banks lack."""
    made: dict[str, Any] = {}
    if manifest.sealed:
        made["sealed"] = {
            str(group): {"bits": seal.bits, "layout": seal.layout}
            for group, seal in manifest.sealed.items()
        }
    if manifest.tuning:
        made["tuning"] = {n: [list(pair) for pair in c] for n, c in sorted(manifest.tuning.items())}
    return made


def _transform_json(transform: Transform) -> dict[str, Any]:
    made: dict[str, Any] = {
        "shuffle": transform.shuffle.value,
        "signs": transform.signs.value,
        "targets": transform.targets,
        "every": transform.every,
        "rest": transform.rest.value,
    }
    if transform.matched is not None:
        made["matched"] = sorted(transform.matched)
    return made


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as the JSON object that a bank stores."""
    base, transform = manifest.base, manifest.transform
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "features": list(manifest.features),
        "transform": _transform_json(transform),
        "bits": manifest.bits,
        "seed": manifest.seed,
        "capacity": manifest.capacity,
        "next_index": manifest.next_index,
        "groups": manifest.groups,
        "base": {
            "source": base.source,
            "fingerprint": base.fingerprint,
            "storage": base.storage.value,
            "metadata": dict(sorted(base.metadata.items())),
            "tensors": {t.name: [t.dtype, list(t.shape)] for t in base.tensors},
            "files": dict(sorted(base.files.items())),
            **({"layout": dict(base.layout)} if base.layout else {}),
            **_origin(base),
        },
        "tasks": [_task_json(task) for task in manifest.tasks],
        "forgotten": [list(pair) for pair in manifest.forgotten],
        "steps": dict(manifest.steps),
        "widths": dict(manifest.widths),
        **_optional(manifest),
        "stats": {
            "cells": [[name, list(tensors)] for name, tensors in manifest.cells],
            "estimated": [list(pair) for pair in sorted(manifest.estimated)],
        },
        **manifest.extra,
    }


def encode(manifest: Manifest) -> bytes:
    """UTF-8 JSON without spaces."""
    return json.dumps(to_json(manifest), separators=(",", ":"), ensure_ascii=False).encode()
