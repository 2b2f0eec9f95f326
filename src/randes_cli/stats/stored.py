"""Norms and Gram matrices of a bank: gathered while packing, read when describing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.core.levels import DISTORTION
from randes_cli.core.prediction import Grams, Lengths, Prediction, moments, predict, task_cosine
from randes_cli.core.shuffle import layer_type
from randes_cli.core.stats import default_coefficient
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import GRAM, NORMS, ROUNDED
from randes_cli.files.manifest import Manifest
from randes_cli.files.records import TaskRecord
from randes_cli.plan import Unit, plan_units, sealable, share_of, superposable, tensor_bytes
from randes_cli.specs import Shuffle, TensorInfo, Transform

Cells = Sequence[tuple[str, tuple[str, ...]]]

#: Gram matrices are kept per tensor while they take less of the base's bytes than the first
#: share, per layer type up to the second (or so many bytes), and as one for all tensors beyond.
GRAM_SHARE = 1 / 64
TYPE_SHARE, TYPE_BYTES = 1 / 8, 2**20
#: The name of a cell of all tensors.
WHOLE = "*"


def norm_rows(base: Iterable[TensorInfo]) -> list[str]:
    """The tensors that the rows of ``stats/norms`` stand for."""
    return [tensor.name for tensor in base if superposable(tensor)]


def choose_cells(units: Sequence[Unit], base: Sequence[TensorInfo], tasks: int) -> Cells:
    """What each pair of Gram matrices covers: a tensor, the tensors of one type, or all."""
    names = [name for unit in units for name in unit.names]
    pair, room = 2 * 8 * tasks**2, tensor_bytes(base)
    if len(names) * pair <= GRAM_SHARE * room:
        return [(name, (name,)) for name in names]
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(layer_type(name), []).append(name)
    if len(types) * pair <= max(TYPE_SHARE * room, TYPE_BYTES):
        return [(kind, tuple(members)) for kind, members in types.items()]
    return [(WHOLE, tuple(names))] if names else []


def cells_of(names: Sequence[str], cells: Cells) -> I64:
    """The number of each tensor's cell, −1 for none."""
    cell = {name: number for number, (_, members) in enumerate(cells) for name in members}
    return np.fromiter((cell.get(name, -1) for name in names), np.int64, len(names))


def sealable_rows(base: Iterable[TensorInfo]) -> F64:
    """1 where a superposable tensor is cut when its group is sealed, 0 where it stays live."""
    return np.array([sealable(tensor) for tensor in base if superposable(tensor)], np.float64)


def shared_rows(base: Iterable[TensorInfo], every: int) -> F64:
    """The m of each superposable tensor in a group that stores one element in `every`."""
    tensors = [tensor for tensor in base if superposable(tensor)]
    found = {tensor.shape: share_of(tensor, 0, {0: every}).every for tensor in tensors}
    return np.array([found[tensor.shape] for tensor in tensors], np.float64)


def kept_energy(
    base: Sequence[TensorInfo], sealed: Mapping[int, int], shares: Mapping[int, int]
) -> dict[int, F64]:
    """What part of each tensor's energy a retrieval keeps, by group, where it is not all.

    `sealed` has the bits of sealed groups, whose levels keep 1 − D; `shares` the m of groups that
    store one element in m: what is left of a delta comes back m times as large, so that it has
    m times the energy.
    """
    made = {}
    for group in sorted({*sealed, *shares}):
        lost = DISTORTION[sealed[group]] if group in sealed else 0.0
        dense = 1.0 - sealable_rows(base) * lost
        made[group] = dense / shared_rows(base, shares.get(group, 1))
    return made


def sealed_bits(manifest: Manifest) -> dict[int, int]:
    """Bits of the sealed groups."""
    return {group: seal.bits for group, seal in manifest.sealed.items()}


def changed_rows(manifest: Manifest) -> Bools:
    """Which superposable tensors each task's superposition stands for, tensors × T."""
    rows = {name: row for row, name in enumerate(norm_rows(manifest.base.tensors.values()))}
    made = np.ones((len(rows), len(manifest.tasks)), np.bool_)
    for column, task in enumerate(manifest.tasks):
        for names in (task.unchanged, task.absent, task.own):
            made[[rows[name] for name in names if name in rows], column] = False
    return made


def bank_lengths(manifest: Manifest, norms: F64, rounded: F64) -> Lengths:
    """The lengths of a bank's deltas, from ``stats/norms`` and ``stats/rounded``."""
    return Lengths(
        norms,
        rounded[0],
        rounded[1],
        changed_rows(manifest),
        tuple(task.group for task in manifest.tasks),
        shuffled_rows(
            manifest.base.tensors.values(),
            manifest.transform,
            [(task.seed, task.index) for task in manifest.tasks],
        ),
        kept_energy(list(manifest.base.tensors.values()), sealed_bits(manifest), manifest.shares),
    )


def shuffled_rows(
    base: Iterable[TensorInfo], transform: Transform, tasks: Sequence[tuple[int, int]]
) -> I64 | None:
    """The tensor that each of `tasks` (seed, index) has at each position; None: its own."""
    if transform.shuffle is Shuffle.none:
        return None
    rows = {name: row for row, name in enumerate(norm_rows(base))}
    made = np.repeat(np.arange(len(rows))[:, None], len(tasks), axis=1)
    for unit in plan_units(base, transform):
        places = np.array([rows[name] for name in unit.names])
        for column, (seed, index) in enumerate(tasks if unit.layers > 1 else ()):
            made[places, column] = places[unit.order(seed, index)]
    return made


def predict_bank(manifest: Manifest, statistics: Statistics) -> Prediction:
    """The prediction of every tensor of every task of a bank."""
    lengths = bank_lengths(manifest, statistics.norms, statistics.rounded)
    return predict(lengths, statistics.met(manifest.base.tensors.values()))


def stands_alone(manifest: Manifest, task: TaskRecord) -> bool:
    """Whether nothing but a task's own rounded delta can come back with it: then λ is 1."""
    groups = [one.group for one in manifest.tasks]
    return task.group in alone_in(groups, manifest.forgotten, manifest.sealed)


def alone_in(
    groups: Iterable[int], forgotten: Iterable[tuple[int, int]], sealed: Container[int]
) -> set[int]:
    """The live groups that hold one delta alone."""
    held = Counter(groups)
    held.update(group for _, group in forgotten)
    return {group for group, count in held.items() if count == 1 and group not in sealed}


def default_lambda(bank: BankFile, place: int) -> float:
    """λ that an untuned task gets, from the lengths of the deltas alone (no Gram matrix)."""
    if stands_alone(bank.manifest, bank.manifest.tasks[place]):
        return 1.0
    lengths = bank_lengths(bank.manifest, *stored_lengths(bank))
    return default_coefficient(task_cosine(_as_then(bank.manifest, lengths), place))


def coefficients(manifest: Manifest, lengths: Lengths) -> list[float]:
    """λ of every task: what `tune` chose, else the default (see `default_lambda`)."""
    found = [task.default for task in manifest.tasks if task.default is not None]
    if len(found) < len(manifest.tasks):
        found = defaults(manifest, lengths)
    return [
        default if task.coefficient is None else task.coefficient
        for task, default in zip(manifest.tasks, found, strict=True)
    ]


def with_defaults(manifest: Manifest, norms: F64, rounded: F64) -> Manifest:
    """The manifest with every task's default λ, of a bank that is to be written.

    `norms` and `rounded` have the manifest's tasks in order. Banks of version 1 record none.
    """
    if manifest.version < 2:
        return manifest
    found = defaults(manifest, bank_lengths(manifest, norms, rounded))
    pairs = zip(manifest.tasks, found, strict=True)
    return replace(manifest, tasks=tuple(replace(task, default=value) for task, value in pairs))


def defaults(manifest: Manifest, lengths: Lengths) -> list[float]:
    """λ of every task where nobody tuned any."""
    alone = alone_in(lengths.groups, manifest.forgotten, manifest.sealed)
    cosines = moments(_as_then(manifest, lengths)).cosine.tolist()
    return [
        1.0 if group in alone else default_coefficient(cosine)
        for group, cosine in zip(lengths.groups, cosines, strict=True)
    ]


def _as_then(manifest: Manifest, lengths: Lengths) -> Lengths:
    """What the default λ of a bank of version 1 is made from, so that its tasks stay as they are:
    its norms alone, which are of rounded deltas, each in its own place."""
    if manifest.version > 1:
        return lengths
    norms = lengths.whole
    changed = np.asarray(norms > 0)
    return replace(lengths, kept=norms, rounded=norms, changed=changed, order=None)


@dataclass(frozen=True)
class Statistics:
    """What a bank knows of its deltas.

    Attributes:
        indices: the tasks' indices, in the order of all columns here.
        norms: ‖Δ_j‖² by superposable tensor of the base and task, before rounding.
        rounded: ⟨Δ_j, q_j⟩ and ‖q_j‖² of the rounded deltas, 2 × that.
        grams: cells × 2 × T × T Gram matrices, as they are and as they meet.
        cells: what each pair of Gram matrices covers.
        estimated: pairs of indices whose Gram entries are estimates.
    """

    indices: tuple[int, ...]
    norms: F64
    rounded: F64
    grams: F64
    cells: tuple[tuple[str, tuple[str, ...]], ...]
    estimated: frozenset[tuple[int, int]]

    def data(self) -> tuple[F64, F64, F64]:
        """The tensors that hold them, in the order of the file."""
        return self.norms, self.rounded, self.grams

    def met(self, base: Iterable[TensorInfo]) -> Grams:
        """The Gram matrices of the deltas as they meet."""
        return Grams(self.grams[:, 1], cells_of(norm_rows(base), self.cells))


def stored_lengths(bank: BankFile) -> tuple[F64, F64]:
    """``stats/norms`` and ``stats/rounded``; a bank without these counts as rounded to nothing."""
    norms = bank.floats(NORMS)
    return norms, bank.floats(ROUNDED) if ROUNDED in bank else np.stack([norms, norms])


def stored_statistics(bank: BankFile) -> Statistics:
    """The statistics that a bank holds."""
    manifest = bank.manifest
    return Statistics(
        tuple(task.index for task in manifest.tasks),
        *stored_lengths(bank),
        bank.floats(GRAM),
        manifest.cells,
        manifest.estimated,
    )


def empty_statistics(base: Sequence[TensorInfo], cells: Cells) -> Statistics:
    """The statistics of a bank without tasks."""
    norms, grams = np.zeros((len(norm_rows(base)), 0)), np.zeros((len(cells), 2, 0, 0))
    return Statistics((), norms, np.stack([norms, norms]), grams, tuple(cells), frozenset())


def drop_tasks(statistics: Statistics, gone: set[int]) -> Statistics:
    """The statistics without some tasks."""
    keep = [n for n, index in enumerate(statistics.indices) if index not in gone]
    return Statistics(
        tuple(statistics.indices[n] for n in keep),
        np.ascontiguousarray(statistics.norms[:, keep]),
        np.ascontiguousarray(statistics.rounded[:, :, keep]),
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
