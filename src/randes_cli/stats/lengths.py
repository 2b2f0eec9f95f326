"""The lengths of a bank's deltas and of their sums: what predictions begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.core.columns import columns
from randes_cli.core.prediction.cut import Cut
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import FORGOTTEN, NORMS, ROUNDED, TAILS, cut_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.plan import plan_units, seal_matrix, sealable, share_of, superposable
from randes_cli.specs import Shuffle, TensorInfo, Tensors, Transform, once, per_kind


@dataclass(frozen=True)
class Known:
    """What predictions are made of besides products of different deltas.

    Attributes:
        norms: ‖Δ_j‖² by superposable tensor of the base and task, before rounding.
        rounded: ⟨Δ_j, q_j⟩ and ‖q_j‖² of the rounded deltas, 2 × that.
        tails: of every delta, 2 × that (`core.tails.tails`); None in banks of before.
        forgotten: ‖q‖² of forgotten deltas at every position, forgotten × tensors; None where
            nobody wrote them down.
        cut: ‖S‖², ⟨S, Q⟩ and ‖Q‖² of each superposable tensor, by sealed group.
        measured: whether `rounded` is known; banks of before count as rounded to nothing.
    """

    norms: F64
    rounded: F64
    tails: F64 | None = None
    forgotten: F64 | None = None
    cut: Mapping[int, F64] = field(default_factory=dict)
    measured: bool = True
    _lengths: list[tuple[Manifest, Lengths]] = field(
        default_factory=list, init=False, compare=False, repr=False
    )

    def joined(self, norms: F64, rounded: F64, tails: F64) -> Known:
        """With the columns of more tasks."""
        both = None if self.tails is None else np.concatenate([self.tails, tails], axis=2)
        return replace(
            self,
            norms=np.ascontiguousarray(np.concatenate([self.norms, norms], axis=1)),
            rounded=np.ascontiguousarray(np.concatenate([self.rounded, rounded], axis=2)),
            tails=both,
        )

    def of(self, columns: Sequence[int]) -> Known:
        return replace(
            self,
            norms=np.ascontiguousarray(self.norms[:, columns]),
            rounded=np.ascontiguousarray(self.rounded[:, :, columns]),
            tails=None if self.tails is None else np.ascontiguousarray(self.tails[:, :, columns]),
        )


def norm_rows(base: Tensors | Iterable[TensorInfo]) -> Sequence[str]:
    """The tensors that the rows of ``stats/norms`` stand for."""
    return once(_rows, base) if isinstance(base, Mapping) else _rows(base)


def _rows(base: Tensors | Iterable[TensorInfo]) -> Sequence[str]:
    if isinstance(base, Mapping):
        return [*compress(base, columns(base).where(superposable).tolist())]
    base = list(base)
    return [*compress((t.name for t in base), per_kind(superposable, base))]


def cut_side(tensor: TensorInfo) -> int:
    """The shorter side of its matrix where sealing cuts a tensor, 0 where it stays live."""
    return min(seal_matrix(tensor)) if sealable(tensor) else 0


def cut_sides(base: Iterable[TensorInfo]) -> F64:
    """That of each superposable tensor."""
    sides = per_kind(lambda one: cut_side(one) if superposable(one) else None, base)
    return np.array([side for side in sides if side is not None], np.float64)


def shared_rows(base: Iterable[TensorInfo], every: int) -> F64:
    """The m of each superposable tensor in a group that stores one element in `every`."""

    def found(tensor: TensorInfo) -> int:
        return share_of(tensor, 0, {0: every}).every if superposable(tensor) else 0

    return np.array([one for one in per_kind(found, base) if one], np.float64)


def supposed_cuts(
    base: Sequence[TensorInfo], sealed: Mapping[int, int], shares: Mapping[int, int]
) -> dict[int, Cut]:
    """What becomes of the sums of groups that are sealed or have a share, nothing measured.

    `sealed` has the bits of sealed groups, `shares` the m of groups that store one element in m.
    """
    return {
        group: Cut.supposed(
            shared_rows(base, shares.get(group, 1)), sealed.get(group), cut_sides(base)
        )
        for group in sorted({*sealed, *shares})
    }


def bank_cuts(manifest: Manifest, cut: Mapping[int, F64]) -> dict[int, Cut]:
    """The same of a bank, from ``stats/sealed/<group>`` where sealing measured it."""
    if not manifest.sealed and not manifest.shares:
        return {}  # of 100,000 tensors none is looked at
    base = list(manifest.base.tensors.values())
    made = supposed_cuts(base, sealed_bits(manifest), manifest.shares)
    for group in manifest.sealed.keys() & cut.keys():  # not of one that was sealed before an edit
        made[group] = made[group].measured(*cut[group])
    return made


def sealed_bits(manifest: Manifest) -> dict[int, int]:
    return {group: seal.bits for group, seal in manifest.sealed.items()}


def changed_rows(manifest: Manifest) -> Bools:
    """Which superposable tensors each task's superposition stands for, tensors × T."""
    names = norm_rows(manifest.base.tensors)
    made = np.ones((len(names), len(manifest.tasks)), np.bool_)
    rows: dict[str, int] = {}
    for column, task in enumerate(manifest.tasks):
        for found in (task.unchanged, task.absent, task.own):
            if found and not rows:
                rows = {name: row for row, name in enumerate(names)}
            made[[rows[name] for name in found if name in rows], column] = False
    return made


def forgotten_energy(known: Known, manifest: Manifest) -> dict[int, F64]:
    """‖q‖² at every position of deltas that no task answers for, by group that has tasks.

    Where nobody wrote them down each counts as the mean of the group's tasks.
    """
    of, made = np.array([task.group for task in manifest.tasks], np.int64), dict[int, F64]()
    places: dict[int, list[int]] = {}
    for place, (_, group) in enumerate(manifest.forgotten):
        places.setdefault(group, []).append(place)
    for group in sorted(set(of.tolist()) & places.keys()):
        if known.forgotten is not None:
            made[group] = known.forgotten[places[group]].sum(axis=0)
        else:
            mean = known.rounded[1][:, np.flatnonzero(of == group)].mean(axis=1)
            made[group] = len(places[group]) * mean
    return made


def bank_lengths(manifest: Manifest, known: Known) -> Lengths:
    """The lengths of a bank's deltas, and what becomes of their sums: of a manifest made once."""
    for made, found in known._lengths:
        if made is manifest:
            return found
    known._lengths[:] = [(manifest, _bank_lengths(manifest, known))]
    return known._lengths[0][1]


def _bank_lengths(manifest: Manifest, known: Known) -> Lengths:
    return Lengths(
        known.norms,
        known.rounded[0],
        known.rounded[1],
        changed_rows(manifest),
        tuple(task.group for task in manifest.tasks),
        _order(manifest),
        bank_cuts(manifest, known.cut),
        known.tails,
        forgotten_energy(known, manifest),
    )


def _order(manifest: Manifest) -> I64 | None:
    if manifest.transform.shuffle is Shuffle.none:
        return None
    tasks = [(task.seed, task.index) for task in manifest.tasks]
    return shuffled_rows(manifest.base.tensors.values(), manifest.transform, tasks)


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


def stored_lengths(bank: BankFile) -> Known:
    """The lengths that a bank has; one without ``stats/rounded`` counts as rounded to nothing."""
    norms, held = bank.floats(NORMS), bank.manifest.sealed
    rounded = bank.floats(ROUNDED) if ROUNDED in bank else np.stack([norms, norms])
    cut = {group: bank.floats(cut_key(group)) for group in held if cut_key(group) in bank}
    tails, forgotten = (bank.floats(k) if k in bank else None for k in (TAILS, FORGOTTEN))
    return Known(norms, rounded, tails, forgotten, cut, ROUNDED in bank)


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
