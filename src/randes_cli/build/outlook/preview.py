"""The bank that a build would make, as far as samples tell: what a dry run reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from randes_cli.build.altered import foreseen
from randes_cli.build.build import Build, Built
from randes_cli.build.draft import Draft
from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.exact import differs, look_at
from randes_cli.build.jobs.strips import held_codes
from randes_cli.build.layout import bank_size
from randes_cli.build.measured import Measured, sampled_lengths, supposed_lengths
from randes_cli.build.outlook.sizes import Sizes
from randes_cli.build.outlook.trial import sampled_cuts
from randes_cli.build.records import NO_FINGERPRINT, record_of, recorded_source
from randes_cli.build.room import room_of
from randes_cli.build.samples.grams import signs_on
from randes_cli.build.samples.stand_ins import fill_rows
from randes_cli.build.steps import BeyondGrid, Overflowing, Steps, no_room
from randes_cli.core.arrays import F64
from randes_cli.core.grid import LIMIT
from randes_cli.core.share import Share
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.source import Sample
from randes_cli.plan import STEP_SAMPLE, Rect, Unit, sample_runs
from randes_cli.specs import ITEM_SIZE, TensorInfo
from randes_cli.stats.approximate import SAMPLED, SUPPOSED
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Statistics


def preview(build: Build, seal_bits: int | None = None) -> Built:
    """What `build.write` would make, and where `seal_bits` is given what sealing would measure."""
    if not build.supposed:
        found = foreseen(build.draft.coming, build.draft.deltas_from)
        build.draft = replace(build.draft, coming=found)
    start, coming, base = build.draft.start, build.draft.coming, build.draft.base.tensors
    rows = norm_rows(base)
    lengths = supposed_lengths(base, coming) if build.supposed else _sampled(build, rows)
    like = set() if build.supposed else _like_the_base(build.draft)
    added = [
        record_of(
            base,
            one,
            {n for n, c in zip(rows, there, strict=True) if c}
            | {n for n in one.fit.exact if (one.index, n) not in like},
            NO_FINGERPRINT,
            source=recorded_source(one.source.source, build.path),
        )
        for one, there in zip(coming, lengths.changed.T, strict=True)
    ]
    statistics = _statistics(build, lengths, seal_bits)
    old = build.draft.old
    cells = statistics.cells if old is not None else tuple(build.cells)
    known = build.with_records(added)
    manifest = replace(known, cells=cells, estimated=statistics.estimated)
    manifest = with_defaults(manifest, statistics.known)
    if old is not None:
        room = room_of(build.draft, build.steps, cells)
        tensors = _edited(build.draft, old, build.steps, statistics)
        size = bank_size(tensors, room, manifest, asked=build.most, old=old.most)
        return Built(size.bytes, manifest, statistics)
    whole = replace(manifest, base=replace(start.base, fingerprint=NO_FINGERPRINT))
    nbytes = Sizes(build.draft, whole, statistics, build.most).here(build.steps, seal_bits)
    return Built(nbytes, manifest, statistics)


def _like_the_base(draft: Draft) -> set[tuple[int, str]]:
    """Index and name of what tasks would keep exactly and, by its beginning, is the base's."""
    return {
        (one.owner, one.name)
        for one in draft.exact
        if isinstance(one.owner, int) and one.twin is not None and not differs(one)
    }


def _sampled(build: Build, rows: Sequence[str]) -> Measured:
    draft = build.draft
    for exact in draft.exact:
        look_at(exact)
    added = not draft.leaving and set(draft.start.shares.values()) <= {1}
    try:
        there = draft.deltas_from, draft.coming, build.steps, rows
        found = sampled_lengths(*there, only_added=added, stands=build.stands)
        if draft.old is not None and not draft.old.far:
            check_sums(draft, build.steps)
        return found
    except (BeyondGrid, Overflowing) as error:
        base = draft.base.source if draft.old is None else None
        raise no_room(error, build.path, base) from None


def _statistics(build: Build, lengths: Measured, seal_bits: int | None) -> Statistics:
    with build.relation() as relation:
        made = build.statistics(lengths, relation)
    if seal_bits is None or build.supposed:
        return made
    base = build.draft.base.tensors
    cuts = sampled_cuts(
        build.draft.deltas_from,
        base,
        build.draft.coming,
        {u: e for u, e in build.steps.exponents().items() if u not in build.stands},
        norm_rows(base),
        seal_bits,
        build.draft.start.shares,
    )
    place = {name: row for row, name in enumerate(norm_rows(base))}
    for found in cuts.values():
        fill_rows(found[..., None], place, build.stands)
    return replace(made, known=replace(made.known, cut=cuts))


def sampled(build: Build) -> str:
    """What the predictions of a preview rest on."""
    return SUPPOSED if build.supposed else SAMPLED


def _edited(
    draft: Draft, old: BankFile, steps: Steps, statistics: Statistics
) -> Iterator[TensorInfo]:
    """The tensors of the bank that follows an old one, in the order of its file: see `fill`.

    What may turn out to be the base's (a running statistic) counts by its beginning.
    """
    yield from map(old.info, draft.kept_keys("base"))
    yield from draft.live_sums(steps, set(draft.units))
    yield from map(old.info, draft.taken_over())
    yield from (tensor for tensor, _ in draft.new_files())
    yield from (one.kept for one in draft.exact if one.twin is None)
    yield from (one.kept for one in draft.exact if one.twin is not None and differs(one))
    found = statistics.data()
    yield from (TensorInfo(key, "F64", data.shape) for key, data in found.items())
    yield from (old.info(key) for key in draft.kept_statistics() if key not in found)


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
