"""Why the prediction of a task is approximate: what nobody measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.columns import columns
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import FORGOTTEN, ROUNDED, cut_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.bank.records import TaskRecord
from randes_cli.specs import Tensors, once
from randes_cli.stats.lengths import bank_lengths
from randes_cli.stats.stored import Statistics

#: What predictions of dry runs rest on.
SAMPLED = "a dry run looks at a sample of the deltas"
SUPPOSED = "the inputs are not at hand, so all deltas are taken to be alike"
_CUT = "its group was sealed by an older version, which did not measure what that took away"
_UNMEASURED = "what sealing takes away is measured while it is done"
_ROUNDED = "it was packed by an older version, which did not measure what rounding took away"
_FORGOTTEN = "a task that was forgotten in its group is taken to be as long as the others"
_ESTIMATED = "how it meets tasks whose originals were not at hand is estimated"
_UNLIKE = "few bits treat the unlike deltas of its group (sparse, of low rank) unlike, by up to 0.2"
_COARSE = "rounding to its dtype, which is not counted, takes as much as few bits give back"
#: What rounding to a dtype takes from values, beside them, and which share of what comes back is
#: much.
_ROUNDING, _MUCH = {"BF16": 2.0**-7 / 5, "F16": 2.0**-10 / 5}, 1 / 3
#: Bits from which a cut takes nothing away that would show, and how far heaviness may differ.
_FINE, _APART = 8, 1.0


def approximations(
    manifest: Manifest,
    statistics: Statistics,
    back: Sequence[float | None] = (),
    *,
    dry_run: str = "",
    sealing: bool = False,
) -> list[str]:
    """Of every task, why its prediction is approximate, joined; empty where all was measured.

    `back` are the lengths of what comes back beside the base's, where they are known; `dry_run`
    is `SAMPLED` or `SUPPOSED` in a dry run; `sealing` says that groups without measurements are
    about to be sealed.
    """
    known = statistics.known
    unlike = _unlike_groups(bank_lengths(manifest, known)) if manifest.sealed else set()
    forgotten = {group for _, group in manifest.forgotten} if known.forgotten is None else set()
    estimated = {index for pair in statistics.estimated for index in pair}
    cut = _UNMEASURED if sealing or dry_run else _CUT
    coarse = _coarse(manifest, back)

    def reasons(task: TaskRecord) -> list[tuple[bool, str]]:
        sealed = task.group in manifest.sealed
        return [
            (bool(dry_run), dry_run),
            (sealed and task.group not in known.cut and dry_run != SUPPOSED, cut),
            (not known.measured, _ROUNDED),
            (task.group in forgotten, _FORGOTTEN),
            (task.index in estimated, _ESTIMATED),
            (task.group in unlike, _UNLIKE),
            (sealed and task.name in coarse, _COARSE),
        ]

    return [_joined(reasons(task)) for task in manifest.tasks]


def _coarse(manifest: Manifest, back: Sequence[float | None]) -> set[str]:
    """Tasks whose dtype rounds about as much as comes back: few bits lie off its grid."""
    made = set()
    for task, length in zip(manifest.tasks, back, strict=False):
        mine = task.dtype or once(_usual, manifest.base.tensors)
        if length is not None and mine in _ROUNDING and _ROUNDING[mine] > _MUCH * length:
            made.add(task.name)
    return made


def _usual(base: Tensors) -> str:
    """The dtype of most elements."""
    found, sizes = columns(base), Counter[str]()
    counts = np.bincount(found.kind_of, minlength=len(found.kinds)).tolist()
    for kind, count in zip(found.kinds, counts, strict=True):
        sizes[kind.dtype] += count * kind.elements
    return max(sizes, key=lambda dtype: sizes[dtype], default="")


def stored_reason(bank: BankFile, task: TaskRecord) -> str:
    """Why what a bank's lengths alone say of a task is approximate; reads nothing."""
    manifest, held = bank.manifest, task.group
    lost = any(group == held for _, group in manifest.forgotten) and FORGOTTEN not in bank
    reasons = [
        (held in manifest.sealed and cut_key(held) not in bank, _CUT),
        (ROUNDED not in bank, _ROUNDED),
        (lost, _FORGOTTEN),
    ]
    return _joined(reasons)


def _joined(reasons: Iterable[tuple[bool, str]]) -> str:
    return "; ".join(words for so, words in reasons if so)


def _unlike_groups(lengths: Lengths) -> set[int]:
    """Groups of few bits with deltas some of which have far heavier tails than others."""
    made: set[int] = set()
    for group, cut in lengths.cuts.items():
        members = lengths.members(group)
        few = cut.bits is not None and cut.bits < _FINE
        if few and lengths.tails is not None and len(members) > 1:
            rows = cut.side > 0
            ours = np.ix_(rows, members)
            heavy = _heaviness(lengths.rounded[ours], lengths.tails[1][ours])
            if len(heavy) and float(heavy.max() - heavy.min()) > _APART:
                made.add(group)
    return made


def are_heavy(lengths: Lengths) -> bool:
    """Whether any task's deltas have far heavier tails than a Gaussian's."""
    if lengths.tails is None:
        return False
    found = _heaviness(lengths.rounded, lengths.tails[1])
    return bool(len(found) and found.max() > 1 + _APART)


def _heaviness(energy: F64, fourth: F64) -> F64:
    """The mean of each delta's fourth moments over tensors, by their energies; of those changed."""
    whole = energy.sum(axis=0)
    there = whole > 0
    found: F64 = (energy * fourth).sum(axis=0)[there] / whole[there]
    return found
