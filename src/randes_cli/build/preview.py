"""The bank that a build would make, as far as samples tell: what a dry run reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from randes_cli.build.build import Build, Built
from randes_cli.build.edited_size import edited_size
from randes_cli.build.exact import look_at
from randes_cli.build.measured import Measured, sampled_lengths, supposed_lengths
from randes_cli.build.records import NO_FINGERPRINT, recorded_source, supposed_record
from randes_cli.build.sizes import Sizes
from randes_cli.build.stand_ins import fill_rows
from randes_cli.build.steps import BeyondGrid, Overflowing, no_room
from randes_cli.build.trial import sampled_cuts
from randes_cli.stats.approximate import SAMPLED, SUPPOSED
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Statistics


def preview(build: Build, seal_bits: int | None = None) -> Built:
    """What `build.write` would make, and where `seal_bits` is given what sealing would measure."""
    start, coming, base = build.draft.start, build.draft.coming, build.draft.base.tensors
    rows = norm_rows(list(base.values()))
    lengths = supposed_lengths(base, coming) if build.supposed else _sampled(build, rows)
    added = [
        supposed_record(
            base,
            one,
            (n for n, c in zip(rows, there, strict=True) if c),
            source=recorded_source(one.source.source, build.path),
        )
        for one, there in zip(coming, lengths.changed.T, strict=True)
    ]
    statistics = _statistics(build, lengths, seal_bits)
    manifest = replace(build.with_records(added), cells=statistics.cells)
    manifest = with_defaults(manifest, statistics.known)
    old = build.draft.old
    if old is not None:
        size = edited_size(build.draft, old, build.steps, manifest, statistics)
        return Built(size, manifest, statistics)
    whole = replace(manifest, base=replace(start.base, fingerprint=NO_FINGERPRINT))
    size = Sizes(build.draft, whole, statistics).here(build.steps, seal_bits)
    return Built(size, manifest, statistics)


def _sampled(build: Build, rows: Sequence[str]) -> Measured:
    draft = build.draft
    for exact in draft.exact:
        look_at(exact)
    added = not draft.leaving and set(draft.start.shares.values()) <= {1}
    try:
        return sampled_lengths(
            build.base, draft.coming, build.steps, rows, only_added=added, stands=build.stands
        )
    except (BeyondGrid, Overflowing) as error:
        base = draft.base.source if draft.old is None else None
        raise no_room(error, build.path, base) from None


def _statistics(build: Build, lengths: Measured, seal_bits: int | None) -> Statistics:
    made = build.statistics(lengths)
    if seal_bits is None or build.supposed:
        return made
    base = build.draft.base.tensors
    cuts = sampled_cuts(
        build.base,
        base,
        build.draft.coming,
        {u: e for u, e in build.steps.exponents().items() if u not in build.stands},
        norm_rows(list(base.values())),
        seal_bits,
        build.draft.start.shares,
    )
    place = {name: row for row, name in enumerate(norm_rows(list(base.values())))}
    for found in cuts.values():
        fill_rows(found[..., None], place, build.stands)
    return replace(made, known=replace(made.known, cut=cuts))


def sampled(build: Build) -> str:
    """What the predictions of a preview rest on."""
    return SUPPOSED if build.supposed else SAMPLED
