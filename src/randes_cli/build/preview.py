"""The bank that a build would make, as far as samples tell: what a dry run reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from randes_cli.build.build import Build, Built
from randes_cli.build.draft import Draft
from randes_cli.build.exact import differs, look_at
from randes_cli.build.measured import Measured, sampled_lengths, supposed_lengths
from randes_cli.build.records import NO_FINGERPRINT, recorded_source, supposed_record
from randes_cli.build.samples.stand_ins import fill_rows
from randes_cli.build.sizes import Sizes
from randes_cli.build.steps import BeyondGrid, Overflowing, Steps, no_room
from randes_cli.build.trial import sampled_cuts
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import MANIFEST, parse_key
from randes_cli.files.bank.manifest import Manifest, encode
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.specs import TensorInfo
from randes_cli.stats.approximate import SAMPLED, SUPPOSED
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Statistics


def preview(build: Build, seal_bits: int | None = None) -> Built:
    """What `build.write` would make, and where `seal_bits` is given what sealing would measure."""
    start, coming, base = build.draft.start, build.draft.coming, build.draft.base.tensors
    rows = norm_rows(base)
    lengths = supposed_lengths(base, coming) if build.supposed else _sampled(build, rows)
    like = set() if build.supposed else _like_the_base(build.draft)
    added = [
        supposed_record(
            base,
            one,
            {n for n, c in zip(rows, there, strict=True) if c}
            | {n for n in one.fit.exact if (one.index, n) not in like},
            source=recorded_source(one.source.source, build.path),
        )
        for one, there in zip(coming, lengths.changed.T, strict=True)
    ]
    statistics = _statistics(build, lengths, seal_bits)
    old = build.draft.old
    cells = statistics.cells if old is not None else tuple(build.cells)
    manifest = replace(build.with_records(added), cells=cells)
    manifest = with_defaults(manifest, statistics.known)
    if old is not None:
        size = edited_size(build.draft, old, build.steps, manifest, statistics)
        return Built(size, manifest, statistics)
    whole = replace(manifest, base=replace(start.base, fingerprint=NO_FINGERPRINT))
    size = Sizes(build.draft, whole, statistics).here(build.steps, seal_bits)
    return Built(size, manifest, statistics)


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


#: Bytes of a tensor's entry in a header beside its name, about.
_ENTRY = 90


def edited_size(
    draft: Draft, old: BankFile, steps: Steps, manifest: Manifest, statistics: Statistics
) -> int:
    """Bytes of the bank that follows `old`, but for some that only a header's room decides.

    What may turn out to be the base's (a running statistic) counts by its beginning.
    """
    coming, going = list(_coming(draft, steps)), list(_going(draft, old))
    numbers = draft.statistics(statistics.cells)
    coming += numbers
    going += [old.info(one.name) for one in numbers if one.name in old]
    size = old.size + sum(map(_bytes, coming)) - sum(map(_bytes, going))
    return size + len(encode(manifest)) - old.info(MANIFEST).nbytes


def _bytes(tensor: TensorInfo) -> int:
    """Bytes of a tensor, its digests and its entry in the header."""
    return tensor.nbytes + DIGEST_BYTES * chunk_count(tensor) + len(tensor.name) + _ENTRY


def _coming(draft: Draft, steps: Steps) -> Iterator[TensorInfo]:
    """Tensors that the bank lacks: sums, what is kept exactly, and files."""
    yield from (one.kept for one in draft.exact if one.twin is None or differs(one))
    yield from (tensor for tensor, _ in draft.new_files())
    for unit, groups in draft.entered.items():
        for group in groups if unit in steps.ready else ():
            if (group, unit) not in draft.kept:
                yield from draft.sums((group, unit), steps.width(unit))


def _going(draft: Draft, old: BankFile) -> Iterator[TensorInfo]:
    """Tensors of the old bank that nothing needs any more."""
    stays = set(draft.taken_over())
    for key in old.header.tensors:
        kind, group, name = parse_key(key)
        if key in stays or kind not in ("own", "files", "scale", "sum"):
            continue
        if kind != "sum" or (int(group), draft.unit_of[name]) not in draft.kept:
            yield old.info(key)
