"""λ of tasks: what `tune` chose, else the default, from the lengths of deltas alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import replace

import numpy as np

from randes_cli.core.prediction.cosines import default_coefficient
from randes_cli.core.prediction.cut import Cut
from randes_cli.core.prediction.formula import moments, task_cosine
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import NORMS, ROUNDED
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import TaskRecord
from randes_cli.stats.lengths import Known, bank_lengths, stored_lengths


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
    """λ that an untuned task gets which does not stand alone, from the lengths of the deltas."""
    lengths = bank_lengths(bank.manifest, stored_lengths(bank))
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


def with_defaults(manifest: Manifest, known: Known) -> Manifest:
    """The manifest with every task's default λ, of a bank that is to be written.

    `known` has the manifest's tasks in order. Banks of version 1 record none.
    """
    if manifest.version < 2:
        return manifest
    found = defaults(manifest, bank_lengths(manifest, known))
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
    cuts = {g: Cut.supposed(cut.share, cut.bits, cut.side) for g, cut in lengths.cuts.items()}
    return replace(
        lengths, kept=norms, rounded=norms, changed=changed, order=None, cuts=cuts, tails=None
    )


def usual_coefficient(
    bank: BankFile, task: TaskRecord, *, force: bool
) -> tuple[float, tuple[str, ...]]:
    """The default λ from a bank's statistics, and those of them that are damaged.

    With `force` damaged statistics give 1; without it they raise BankDamaged.
    """
    place = next(n for n, other in enumerate(bank.manifest.tasks) if other.index == task.index)
    try:
        return default_lambda(bank, place), ()
    except BankDamaged:
        keys = tuple(key for key in (NORMS, ROUNDED) if _damaged(bank, key))
        if not force:
            raise BankDamaged(
                f"{bank.path}: tensor {keys[0]!r} is damaged, so the default λ of {task.name} is "
                "not known; say --lambda 1 (or --force, which takes 1)"
            ) from None
        return 1.0, keys


def _damaged(bank: BankFile, key: str) -> bool:
    """Whether a statistics tensor is there and damaged."""
    try:
        return key in bank and bank.read_whole(key) is None
    except BankDamaged:
        return True
