"""What is said of each task of a bank: what is predicted, what to expect, counts of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from randes_cli.core.prediction import predict
from randes_cli.core.quality import kept_of, noise_of
from randes_cli.core.verdict import LOST, Verdict, judge
from randes_cli.files.manifest import Manifest
from randes_cli.reports import TaskSummary
from randes_cli.specs import BaseStorage, Rest, Signs, Transform
from randes_cli.stats.approximate import approximations
from randes_cli.stats.coefficients import coefficients
from randes_cli.stats.lengths import bank_lengths
from randes_cli.stats.lost import lost_tasks, lost_tensors, told_lost
from randes_cli.stats.stored import Statistics


def summaries(
    manifest: Manifest, statistics: Statistics, *, dry_run: str = "", sealing: bool = False
) -> tuple[TaskSummary, ...]:
    """Every task of a bank with its predicted cosine and counts of tensors.

    `dry_run` and `sealing` are as for `approximations`.
    """
    lengths = bank_lengths(manifest, statistics.known)
    found = predict(lengths, statistics.met(manifest.base.tensors.values()))
    cosines, chosen = found.over().cosine.tolist(), coefficients(manifest, lengths)
    counts: list[int] = lost_tensors(found, lengths).sum(axis=0).tolist()
    lost = told_lost(found, lengths, manifest.bits)
    judged = verdicts(manifest, cosines, lost_tasks(found, lengths).tolist())
    kept = kept_of(noise_of(lengths)) if predictable(manifest) else None
    unsure = approximations(manifest, statistics, dry_run=dry_run, sealing=sealing)
    names = manifest.base.tensors.keys()
    made = []
    for place, (task, cosine) in enumerate(zip(manifest.tasks, cosines, strict=True)):
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
                expected=judged[place].kept,
                approximate=unsure[place],
                kept=None if kept is None else kept[place].middle,
                kept_low=None if kept is None else kept[place].low,
                kept_high=None if kept is None else kept[place].high,
            )
        )
    return tuple(made)


def verdicts(manifest: Manifest, cosines: Sequence[float], lost: Sequence[bool]) -> list[Verdict]:
    """What to expect of tasks with these predicted cosines."""
    apart, factors = decorrelates(manifest.transform), _factors(manifest)
    return [
        LOST if gone else judge(cosine, decorrelates=apart, factors=factors)
        for cosine, gone in zip(cosines, lost, strict=True)
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
