"""Whether samples show that a sum of a bank passes its range by an edit: for a dry run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randes_cli.build.draft import Draft
from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.strips import held_codes
from randes_cli.build.samples.grams import signs_on
from randes_cli.build.steps import Overflowing, Steps
from randes_cli.core.arrays import F64
from randes_cli.core.grid import LIMIT
from randes_cli.core.share import Share
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.source import Sample
from randes_cli.plan import STEP_SAMPLE, Rect, Unit, sample_runs
from randes_cli.specs import ITEM_SIZE


def check_sums(draft: Draft, steps: Steps) -> None:
    """Add to the stored sums what comes, take out what goes, on the sample of every unit.

    Raises Overflowing where a sum passes the range of its integers and its step cannot change.
    """
    members: dict[int, list[Participant]] = {}
    for one in [*draft.coming, *draft.leaving]:
        members.setdefault(one.group, []).append(one)
    for unit, groups in draft.entered.items():
        if not steps.overflowing([unit]):
            continue
        sample = Sample(draft.deltas_from, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
        bits = steps.width(unit)
        for group in groups:
            some = [one for one in members[group] if one.meets(unit)]
            exponent = steps.step(unit).exponent
            peak = max(
                _peak(draft, group, unit, position, some, sample, exponent)
                for position in range(unit.layers)
            )
            if peak > LIMIT[bits]:
                raise Overflowing(unit, peak, bits)


def _peak(
    draft: Draft,
    group: int,
    unit: Unit,
    position: int,
    members: Sequence[Participant],
    sample: Sample,
    exponent: int,
) -> int:
    """The largest magnitude of a sum, in steps."""
    name, total = unit.names[position], np.zeros(sample.elements)
    share, key = draft.share(group, name), sum_key(group, name)
    if draft.old is not None and (group, unit) in draft.kept:
        bits = 8 * ITEM_SIZE[draft.old.info(key).dtype]
        held = [held_codes(draft.old, key, share, run, bits) for run in sample.runs]
        total += np.concatenate(held)
    for one in members:
        delta = one.delta(sample, unit.names[unit.order(one.seed, one.index)[position]])
        if delta is not None:
            signs = signs_on(unit, unit.flips(one.seed, position), sample.runs)
            total += one.sign * np.rint(delta * 2.0**-exponent) * signs
    if share.every > 1 and np.abs(total).max(initial=0.0) <= LIMIT[16]:  # as when it is stored
        total *= np.concatenate([_held(share, run) for run in sample.runs])
    return int(np.abs(total).max(initial=0.0))


def _held(share: Share, run: Rect) -> F64:
    """1 for the elements of a run that a share stores, 0 for others."""
    first, last = map(share.place, (run.start, run.start + run.elements))
    return share.spread(np.ones(last - first), run.start, run.elements)
