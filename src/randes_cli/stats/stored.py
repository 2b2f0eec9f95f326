"""Norms and Gram matrices of a bank: gathered while packing, read when describing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.core.arrays import F64, I64
from randes_cli.core.levels import DISTORTION
from randes_cli.core.shuffle import layer_type
from randes_cli.core.stats import default_coefficient, predicted_cosine
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import GRAM, NORMS
from randes_cli.files.manifest import Manifest
from randes_cli.plan import Unit, sealable, superposable, tensor_bytes
from randes_cli.reports import TaskSummary
from randes_cli.specs import TensorInfo

Cells = Sequence[tuple[str, tuple[str, ...]]]

#: Gram matrices are kept per tensor while they take less of the base's bytes than this share,
#: and per layer type beyond it.
GRAM_SHARE = 1 / 64


def norm_rows(base: Iterable[TensorInfo]) -> list[str]:
    """The tensors that the rows of ``stats/norms`` stand for."""
    return [tensor.name for tensor in base if superposable(tensor)]


def choose_cells(units: Sequence[Unit], base: Sequence[TensorInfo], tasks: int) -> Cells:
    """What each pair of Gram matrices covers: a tensor, or the tensors of one type."""
    names = [name for unit in units for name in unit.names]
    if len(names) * 2 * 8 * tasks**2 <= GRAM_SHARE * tensor_bytes(base):
        return [(name, (name,)) for name in names]
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(layer_type(name), []).append(name)
    return [(kind, tuple(members)) for kind, members in types.items()]


def cells_of(names: Sequence[str], cells: Cells) -> I64:
    """The number of each tensor's cell, −1 for none."""
    cell = {name: number for number, (_, members) in enumerate(cells) for name in members}
    return np.fromiter((cell.get(name, -1) for name in names), np.int64, len(names))


def kept_energy(
    base: Iterable[TensorInfo], groups: Sequence[int], sealed: Mapping[int, int]
) -> F64 | None:
    """What share of a superposition's energy its levels keep, by superposable tensor and task.

    `groups` has each task's group, `sealed` the bits of sealed groups. None where none is.
    """
    return energy_kept(sealable_rows(base), groups, sealed) if sealed else None


def sealable_rows(base: Iterable[TensorInfo]) -> F64:
    """1 where a superposable tensor is cut when its group is sealed, 0 where it stays live."""
    return np.array([sealable(tensor) for tensor in base if superposable(tensor)], np.float64)


def energy_kept(cut: F64, groups: Sequence[int], sealed: Mapping[int, int]) -> F64:
    """`kept_energy` of a base whose `sealable_rows` are known."""
    lost = [DISTORTION[sealed[group]] if group in sealed else 0.0 for group in groups]
    return 1.0 - np.outer(cut, lost)


def predictions(
    rows: Sequence[str],
    norms: F64,
    cells: Cells,
    grams: F64 | None,
    groups: Sequence[int],
    kept: F64 | None = None,
) -> list[float]:
    """Predicted retrieval cosine of every task, 0 to 1.

    `groups` has each task's group, `kept` what sealing leaves (see `kept_energy`).
    """
    count = norms.shape[1]
    cell = np.zeros(0, np.int64) if grams is None else cells_of(rows, cells)
    made = []
    for task in range(count):
        changed = np.flatnonzero(norms[:, task] > 0)
        met = np.zeros((count, count))
        if grams is not None:
            used = np.unique(cell[changed])
            met = grams[used[used >= 0], 1].sum(axis=0)
        near = [other for other in range(count) if groups[other] == groups[task]]
        inside = norms[changed][:, near]
        left = None if kept is None else kept[changed, task]
        made.append(predicted_cosine(inside, met[np.ix_(near, near)], near.index(task), left))
    return made


def sealed_bits(manifest: Manifest) -> dict[int, int]:
    """Bits of the sealed groups."""
    return {group: seal.bits for group, seal in manifest.sealed.items()}


def coefficients(manifest: Manifest, norms: F64) -> list[float]:
    """λ of every task: what `tune` chose, else the default."""
    defaults = [task.default for task in manifest.tasks if task.default is not None]
    if len(defaults) < len(manifest.tasks):
        defaults = _defaults(manifest, norms)
    return [
        default if task.coefficient is None else task.coefficient
        for task, default in zip(manifest.tasks, defaults, strict=True)
    ]


def _defaults(manifest: Manifest, norms: F64) -> list[float]:
    """The default λ of every task, from norms (no Gram matrix)."""
    tensors, groups = manifest.base.tensors.values(), [task.group for task in manifest.tasks]
    kept = kept_energy(tensors, groups, sealed_bits(manifest))
    cosines = predictions(norm_rows(tensors), norms, (), None, groups, kept)
    return [default_coefficient(cosine) for cosine in cosines]


def with_defaults(manifest: Manifest, norms: F64) -> Manifest:
    """The manifest with every task's default λ, of a bank that is to be written.

    `norms` has the manifest's tasks in order. Banks of version 1 do not record defaults.
    """
    if manifest.version < 2:
        return manifest
    found = zip(manifest.tasks, _defaults(manifest, norms), strict=True)
    return replace(manifest, tasks=tuple(replace(task, default=value) for task, value in found))


@dataclass(frozen=True)
class Statistics:
    """What a bank knows of its deltas.

    Attributes:
        indices: the tasks' indices, in the order of all columns here.
        norms: ‖Δ_j‖² by superposable tensor of the base and task.
        grams: cells × 2 × T × T Gram matrices, as they are and as they meet.
        cells: what each pair of Gram matrices covers.
        estimated: pairs of indices whose Gram entries are estimates.
    """

    indices: tuple[int, ...]
    norms: F64
    grams: F64
    cells: tuple[tuple[str, tuple[str, ...]], ...]
    estimated: frozenset[tuple[int, int]]


def stored_statistics(bank: BankFile) -> Statistics:
    """The statistics that a bank holds."""
    manifest = bank.manifest
    return Statistics(
        tuple(task.index for task in manifest.tasks),
        bank.floats(NORMS),
        bank.floats(GRAM),
        manifest.cells,
        manifest.estimated,
    )


def empty_statistics(base: Sequence[TensorInfo], cells: Cells) -> Statistics:
    """The statistics of a bank without tasks."""
    norms, grams = np.zeros((len(norm_rows(base)), 0)), np.zeros((len(cells), 2, 0, 0))
    return Statistics((), norms, grams, tuple(cells), frozenset())


def drop_tasks(statistics: Statistics, gone: set[int]) -> Statistics:
    """The statistics without some tasks."""
    keep = [n for n, index in enumerate(statistics.indices) if index not in gone]
    return Statistics(
        tuple(statistics.indices[n] for n in keep),
        np.ascontiguousarray(statistics.norms[:, keep]),
        np.ascontiguousarray(statistics.grams[:, :, keep][:, :, :, keep]),
        statistics.cells,
        frozenset(pair for pair in statistics.estimated if not gone & set(pair)),
    )


def merge_cells(statistics: Statistics, cells: Cells) -> Statistics:
    """The same Gram matrices summed over coarser cells."""
    where = {name: number for number, (_, names) in enumerate(cells) for name in names}
    grams = np.zeros((len(cells), *statistics.grams.shape[1:]))
    for number, (_, names) in enumerate(statistics.cells):
        grams[where[names[0]]] += statistics.grams[number]
    return replace(statistics, grams=grams, cells=tuple(cells))


def summaries(manifest: Manifest, statistics: Statistics) -> tuple[TaskSummary, ...]:
    """Every task of a bank with its predicted cosine and counts of tensors."""
    rows = norm_rows(manifest.base.tensors.values())
    groups = [task.group for task in manifest.tasks]
    kept = kept_energy(manifest.base.tensors.values(), groups, sealed_bits(manifest))
    cosines = predictions(rows, statistics.norms, statistics.cells, statistics.grams, groups, kept)
    chosen = coefficients(manifest, statistics.norms)
    names = manifest.base.tensors.keys()
    made = []
    for task, cosine, coefficient in zip(manifest.tasks, cosines, chosen, strict=True):
        exact = names & (task.unchanged | set(task.own) | task.absent)
        made.append(
            TaskSummary(
                name=task.name,
                index=task.index,
                group=task.group,
                seed=task.seed,
                predicted_cosine=cosine,
                coefficient=coefficient,
                superposed=len(names) - len(exact),
                own=len(task.own),
                unchanged=len(task.unchanged),
                missing=len(task.missing),
                side_files=len(task.files),
                left_out=dict(task.left_out),
            )
        )
    return tuple(made)
