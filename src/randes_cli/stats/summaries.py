"""What is said of each task of a bank: what is predicted, what to expect, counts of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randes_cli.core.prediction import predict
from randes_cli.core.quality import Kept, kept_of, mean_kept, noise_of
from randes_cli.core.verdict import FAR_OUT, LOST, Verdict, judge
from randes_cli.files.bank import BankFile
from randes_cli.files.manifest import Manifest
from randes_cli.reports import TaskSummary
from randes_cli.specs import BaseStorage, Rest, Signs, Transform
from randes_cli.stats.approximate import approximations
from randes_cli.stats.base_length import bank_lengths_beside
from randes_cli.stats.coefficients import coefficients
from randes_cli.stats.lengths import Known, bank_lengths
from randes_cli.stats.lost import lost_tasks, lost_tensors, told_lost
from randes_cli.stats.stored import Statistics


def bank_summaries(bank: BankFile, statistics: Statistics) -> tuple[TaskSummary, ...]:
    return summaries(bank.manifest, statistics, bank_lengths_beside(bank, statistics))


def summaries(
    manifest: Manifest,
    statistics: Statistics,
    beside: Sequence[float | None] = (),
    *,
    dry_run: str = "",
    sealing: bool = False,
) -> tuple[TaskSummary, ...]:
    """Every task of a bank with its predicted cosine and counts of tensors.

    `beside` are the deltas' lengths beside the base's, where they are known; `dry_run` and
    `sealing` are as for `approximations`.
    """
    beside = beside or [None] * len(manifest.tasks)
    lengths = bank_lengths(manifest, statistics.known)
    chosen = coefficients(manifest, lengths)
    found = predict(lengths, statistics.met(manifest.base.tensors.values())).at(chosen)
    cosines = found.over().cosine.tolist()
    counts: list[int] = lost_tensors(found, lengths).sum(axis=0).tolist()
    lost = told_lost(found, lengths, manifest.bits)
    judged = verdicts(manifest, cosines, lost_tasks(found, lengths).tolist(), beside)
    kept = kept_of(noise_of(lengths)) if predictable(manifest) else None
    unsure = approximations(manifest, statistics, dry_run=dry_run, sealing=sealing)
    names = manifest.base.tensors.keys()
    made = []
    for place, (task, cosine) in enumerate(zip(manifest.tasks, cosines, strict=True)):
        told = None if kept is None or judged[place] is FAR_OUT else kept[place]
        exact = sum(name in names for name in {*task.unchanged, *task.own, *task.absent})
        made.append(
            TaskSummary(
                name=task.name,
                index=task.index,
                group=task.group,
                seed=task.seed,
                predicted_cosine=cosine,
                coefficient=chosen[place],
                superposed=len(names) - exact,
                own=len(task.own),
                unchanged=len(task.unchanged),
                missing=len(task.missing),
                side_files=len(task.files),
                left_out=dict(task.left_out),
                lost=lost[place],
                lost_tensors=counts[place],
                verdict=judged[place].word,
                expected=judged[place].range(beside[place]),
                length=beside[place],
                approximate=unsure[place],
                kept=told and told.middle,
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
