"""Deltas that do not come back: lost in rounding, or under others' that are much longer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randes_cli.core.arrays import F64, Bools
from randes_cli.core.prediction import Lengths, Prediction, moments, predict
from randes_cli.core.stats import is_lost

#: Cosine of a delta with what it is rounded to, below which rounding is what it is lost to.
_ROUNDED_AWAY = 0.5
#: Share of a delta's energy from which lost tensors are told of.
_MUCH = 0.05


def near(changed: Bools, groups: Sequence[int]) -> F64:
    """How many tasks of its group changed what each task did: of tensors × T, or of T."""
    made = np.zeros(changed.shape)
    for group in set(groups):
        members = np.flatnonzero(np.asarray(groups) == group)
        made[..., members] = changed[..., members].sum(axis=-1, keepdims=True)
    return made


def _lost(found: F64, apart: F64, changed: Bools, groups: Sequence[int]) -> Bools:
    """Both as predicted and were all deltas orthogonal: products by chance do not count."""
    tasks = near(changed, groups)
    return is_lost(found, tasks) & is_lost(apart, tasks) & changed


def lost_tensors(found: Prediction, lengths: Lengths) -> Bools:
    """Which of the tensors that it changed a task does not get back, tensors × T."""
    apart = predict(lengths).cosine
    return _lost(found.cosine, apart, found.changed, lengths.groups)


def lost_tasks(found: Prediction, lengths: Lengths) -> Bools:
    whole = found.over()
    return _lost(whole.cosine, moments(lengths).cosine, whole.changed, lengths.groups)


def told_lost(found: Prediction, lengths: Lengths, bits: int) -> list[str]:
    """Of each task, what of its delta is lost and what to do; empty where it comes back.

    `bits` is the width of new superpositions. Tensors are told of where they hold much of it.
    """
    whole = found.over()
    gone = lost_tasks(found, lengths)
    stored = np.where(lengths.changed, lengths.rounded, 0.0).sum(axis=0)
    scale = np.sqrt(whole.own * stored)
    alone = np.divide(whole.kept, scale, out=np.zeros_like(scale), where=scale > 0)
    tensors = lost_tensors(found, lengths)
    part = np.where(tensors, found.own, 0.0).sum(axis=0) > _MUCH * whole.own
    counts, made = tensors.sum(axis=0).tolist(), list[str]()
    for task, cosine in enumerate(whole.cosine.tolist()):
        if gone[task]:
            made.append(_words(cosine, float(alone[task]), bits))
        else:
            made.append(_of_tensors(counts[task]) if counts[task] and part[task] else "")
    return made


def _words(cosine: float, alone: float, bits: int) -> str:
    """`alone` is the cosine that the delta would have in a group of its own."""
    number = f"(predicted cosine {0.0 if abs(cosine) < 5e-4 else cosine:.3f})"
    if alone >= _ROUNDED_AWAY:
        return (
            f"its delta is lost under much longer ones {number}: give it a group of its own "
            "(NAME=PATH@GROUP or --groups), or leave it out"
        )
    finer = "take finer steps (--bits 16), or " if bits == 8 else ""
    return (
        f"its delta is lost in rounding beside much longer ones {number}: {finer}pack it into a "
        "bank of its own, or leave it out"
    )


def _of_tensors(count: int) -> str:
    return (
        f"{count} of its changed tensors are lost under much longer deltas (verify --against shows "
        "which): give it a group or a bank of its own"
    )
