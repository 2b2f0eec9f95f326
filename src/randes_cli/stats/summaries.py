"""What is said of each task of a bank: what is predicted, what to expect, counts of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F64, Bools
from randes_cli.core.prediction.cosines import is_lost, near
from randes_cli.core.prediction.formula import Prediction, predict
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.core.prediction.quality import NOTHING, Kept, kept_of, mean_kept, noise_of
from randes_cli.core.prediction.verdict import FAR_OUT, LOST, Verdict, judge
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import Manifest
from randes_cli.reports import TaskSummary
from randes_cli.specs import BaseStorage, Rest, Signs, Transform
from randes_cli.stats.approximate import approximations
from randes_cli.stats.base_length import bank_lengths_beside
from randes_cli.stats.coefficients import coefficients
from randes_cli.stats.lengths import Known, bank_lengths
from randes_cli.stats.stored import Statistics


def bank_summaries(
    bank: BankFile, statistics: Statistics, found: Prediction | None = None
) -> tuple[TaskSummary, ...]:
    """`summaries` of an open bank."""
    return summaries(bank.manifest, statistics, bank_lengths_beside(bank, statistics), found)


def summaries(
    manifest: Manifest,
    statistics: Statistics,
    beside: Sequence[float | None] = (),
    found: Prediction | None = None,
    *,
    dry_run: str = "",
    sealing: bool = False,
) -> tuple[TaskSummary, ...]:
    """Every task of a bank with its predicted cosine and counts of tensors.

    `beside` are the deltas' lengths beside the base's, where they are known, and `found` is the
    bank's prediction, where it was made; `dry_run` and `sealing` are as for `approximations`.
    """
    beside = beside or [None] * len(manifest.tasks)
    lengths = bank_lengths(manifest, statistics.known)
    chosen = coefficients(manifest, lengths)
    found = (found or predict(lengths, statistics.met(manifest.base.tensors))).at(chosen)
    whole = found.over()
    cosines = whole.cosine.tolist()
    lost = Lost.of(found, lengths)
    counts: list[int] = lost.tensors.sum(axis=0).tolist()
    told_of = told_lost(found, lost, lengths, manifest.bits, [t.name for t in manifest.tasks])
    judged = verdicts(manifest, cosines, lost.tasks.tolist(), beside)
    kept = kept_of(noise_of(lengths)) if predictable(manifest) else None
    longer = np.divide(whole.length, whole.own, out=np.zeros_like(whole.own), where=whole.own > 0)
    pairs = zip(beside, (np.sqrt(longer) * chosen).tolist(), strict=True)
    back = [None if one is None else one * more for one, more in pairs]
    unsure = approximations(manifest, statistics, back, dry_run=dry_run, sealing=sealing)
    there = manifest.base.tensors.keys()
    made = []
    for place, (task, cosine) in enumerate(zip(manifest.tasks, cosines, strict=True)):
        told = None if kept is None or judged[place] is FAR_OUT else kept[place]
        told = NOTHING if told and judged[place] is LOST else told
        exact = sum(name in there for name in {*task.unchanged, *task.own, *task.absent})
        made.append(
            TaskSummary(
                name=task.name,
                index=task.index,
                group=task.group,
                seed=task.seed,
                predicted_cosine=cosine,
                coefficient=chosen[place],
                superposed=len(there) - exact,
                own=len(task.own),
                unchanged=len(task.unchanged),
                missing=len(task.absent),
                side_files=len(task.files),
                left_out=dict(task.left_out),
                lost=told_of[place],
                lost_tensors=counts[place],
                verdict=judged[place].word,
                expected=judged[place].range(beside[place]),
                length=beside[place],
                approximate=unsure[place],
                kept=told and told.mean,
                kept_low=told and told.low,
                kept_high=told and told.high,
            )
        )
    return tuple(made)


def mean_cosine(tasks: Sequence[TaskSummary]) -> float:
    """The predicted cosine on average; 1 without a task."""
    return float(np.mean([task.predicted_cosine for task in tasks])) if tasks else 1.0


def kept_on_average(manifest: Manifest, known: Known) -> Kept | None:
    """The predicted share of the gain, mean over the tasks; None where none can be told."""
    return mean_kept(noise_of(bank_lengths(manifest, known))) if predictable(manifest) else None


def verdicts(
    manifest: Manifest,
    cosines: Sequence[float],
    lost: Sequence[bool],
    beside: Sequence[float | None],
) -> list[Verdict]:
    """What to expect of tasks with these predicted cosines and lengths beside the base."""
    apart, factors = decorrelates(manifest.transform), _factors(manifest)
    return [
        LOST if gone else judge(cosine, length, decorrelates=apart, factors=factors)
        for cosine, gone, length in zip(cosines, lost, beside, strict=True)
    ]


def decorrelates(transform: Transform) -> bool:
    """Whether noise says what is lost: all that is summed is flipped element by element."""
    everywhere = transform.targets == "all" and transform.every == 1
    flips = transform.signs in (Signs.hankel, Signs.two_sided)
    return flips and (everywhere or transform.rest is Rest.own)


def predictable(manifest: Manifest) -> bool:
    """Whether a share of the gain can be predicted: not where factors of low rank come back."""
    return decorrelates(manifest.transform) and not _factors(manifest)


def _factors(manifest: Manifest) -> bool:
    return manifest.base.storage is BaseStorage.zero


#: Cosine of a delta with what it is rounded to, below which rounding is what it is lost to.
_ROUNDED_AWAY = 0.5
#: A delta is much longer than another from so many times on; so many of these are named.
_LONGER, _MOST_LONGER = 4.0, 3
#: Share of a delta's energy from which lost tensors are told of.
_MUCH = 0.05


class Lost(NamedTuple):
    """What does not come back.

    Attributes:
        tensors: which of the tensors that it changed a task does not get back, tensors × T.
        tasks: which tasks do not come back at all.
    """

    tensors: Bools
    tasks: Bools

    @classmethod
    def of(cls, found: Prediction, lengths: Lengths) -> Lost:
        """Both as predicted and were all deltas orthogonal: products by chance do not count."""
        whole, groups = found.over(), lengths.groups
        near_each, near_all = near(found.changed, groups), near(whole.changed, groups)
        tensors = is_lost(found.cosine, near_each) & found.changed
        tasks = is_lost(whole.cosine, near_all) & whole.changed
        if tensors.any() or tasks.any():
            apart = predict(lengths)
            tensors &= is_lost(apart.cosine, near_each)
            tasks &= is_lost(apart.over().cosine, near_all)
        return cls(tensors, tasks)


def told_lost(
    found: Prediction, lost: Lost, lengths: Lengths, bits: int, names: Sequence[str]
) -> list[str]:
    """Of each task, what of its delta is lost and what to do; empty where it comes back.

    `bits` is the width of new superpositions. Tensors are told of where they hold much of it.
    """
    whole, (tensors, gone) = found.over(), lost
    stored = np.where(lengths.changed, lengths.rounded, 0.0).sum(axis=0)
    scale = np.sqrt(whole.own * stored)
    alone = np.divide(whole.kept, scale, out=np.zeros_like(scale), where=scale > 0)
    part = np.where(tensors, found.own, 0.0).sum(axis=0) > _MUCH * whole.own
    counts, made = tensors.sum(axis=0).tolist(), list[str]()
    for task, cosine in enumerate(whole.cosine.tolist()):
        if gone[task]:
            longer = _much_longer(task, whole.own, lengths.groups)
            made.append(_words(cosine, float(alone[task]), bits, [names[n] for n in longer]))
        else:
            made.append(_of_tensors(counts[task]) if counts[task] and part[task] else "")
    return made


def _much_longer(task: int, energy: F64, groups: Sequence[int]) -> list[int]:
    """The tasks that a task is lost under, if they are few: longest first."""
    members = [n for n, group in enumerate(groups) if group == groups[task]]
    longer = [n for n in members if energy[n] > _LONGER**2 * energy[task]]
    few = len(longer) <= min(_MOST_LONGER, len(members) // 2)
    return sorted(longer, key=lambda n: -float(energy[n])) if few else []


def _words(cosine: float, alone: float, bits: int, longer: Sequence[str]) -> str:
    """`alone` is the cosine that the delta would have in a group of its own."""
    number = f"(predicted cosine {0.0 if abs(cosine) < 5e-4 else cosine:.3f})"
    of, it, its = (f", of {', '.join(longer)}", "these", "their") if longer else ("", "it", "its")
    leave = f"or leave {'them' if longer else 'it'} out"
    apart = f"give {it} a group of {its} own (NAME=PATH@GROUP)"
    if alone >= _ROUNDED_AWAY:
        return f"its delta is lost under much longer ones {number}{of}: {apart}, {leave}"
    if bits == 8:
        apart = f"{apart} and take finer steps (--bits 16)"
    else:
        apart = f"pack {it} into a bank of {its} own"
    return f"its delta is lost in rounding beside much longer ones {number}{of}: {apart}, {leave}"


def _of_tensors(count: int) -> str:
    return (
        f"{count} of its changed tensors are lost under much longer deltas (verify --against shows "
        "which): give it a group or a bank of its own"
    )
