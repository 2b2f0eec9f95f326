"""What a pack reports: sizes, predictions, and what other bits and groups would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from randes_cli.build.build import Build, Built
from randes_cli.build.inputs.inputs import Inputs
from randes_cli.build.layout import as_sealed_to
from randes_cli.build.outlook.preview import sampled
from randes_cli.build.outlook.sizes import Sizes
from randes_cli.build.outlook.twins import twins
from randes_cli.build.outlook.unsuited import unsuited
from randes_cli.build.records import task_summary
from randes_cli.build.samples.stand_ins import stand_in_note
from randes_cli.core.prediction.lengths import Lengths
from randes_cli.core.prediction.quality import mean_kept, noise_of
from randes_cli.core.prediction.verdict import hedged
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.checkpoint.shared import whole_of
from randes_cli.files.local.guard import reads_far
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.reports import Alternative, PackReport, TaskSummary
from randes_cli.specs import BaseStorage, Transform, table_bytes
from randes_cli.stats.alternatives import adapter_advice, advice, saving, sealing
from randes_cli.stats.base_length import lengths_beside
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.frontier import (
    frontier,
    group_choices,
    marked,
    present,
    resized,
    weigh_all,
)
from randes_cli.stats.lengths import bank_lengths
from randes_cli.stats.outline import Outline
from randes_cli.stats.room import room
from randes_cli.stats.summaries import kept_on_average, mean_cosine, predictable, summaries


def pack_report(
    inputs: Inputs,
    build: Build,
    built: Built,
    seal_bits: int | None,
    *,
    dry_run: bool,
    weigh: bool,
) -> PackReport:
    """The report of a bank that was built, or (a dry run) that would be.

    `weigh`: with what other choices would give.
    """
    base_bytes = table_bytes(whole_of(inputs.base.source).tensors)
    manifest, start = _in_the_end(built, seal_bits), build.draft.start
    lengths = bank_lengths(manifest, built.statistics.known)
    base = None if build.supposed or reads_far() else build.draft.base
    beside = lengths_beside(manifest, built.statistics, base)
    unsure = sampled(build) if dry_run else ""
    sealing = seal_bits is not None
    predicted = summaries(manifest, built.statistics, beside, dry_run=unsure, sealing=sealing)
    size, bits = built.bytes, seal_bits or start.bits
    sized = size if dry_run or seal_bits is None else _sizer(build, built).here(build.steps, bits)
    alike = [] if build.supposed else twins(built, build.draft, dry_run=dry_run)
    told = weigh and predictable(manifest)
    cosine = mean_cosine(predicted)
    choices = _alternatives(build, built, sized, lengths, bits, cosine) if told else ()
    kept_adapters = inputs.base.storage is BaseStorage.zero
    merged = sum(isinstance(one.source, MergedAdapter) for one in inputs.participants)
    few = stand_in_note(build.stands, build.draft.units)
    ours = 0 if kept_adapters else table_bytes(inputs.base.source.tensors)
    return PackReport(
        bank=str(build.path),
        dry_run=dry_run,
        bank_bytes=size,
        base_bytes=base_bytes,
        separate_bytes=sum(
            table_bytes(whole_of(one.source).tensors) for one in inputs.participants
        ),
        read_bytes=build.read_bytes + ours,
        buffer_bytes=build.workers.buffer_bytes + (build.waiting_bytes if sealing else 0),
        tasks=_summaries(build, predicted),
        kept_exactly={one.name: one.kept_exactly() for one in build.draft.coming},
        notes=(*inputs.base.notes, *_targets_note(inputs.transform), *few, *alike),
        refused=inputs.refused,
        download_bytes=inputs.download_bytes,
        bits=bits,
        share=start.shares.get(0, 1),
        groups=start.groups,
        adapters="kept" if kept_adapters else "merged" if merged else None,
        merged=merged,
        room=room(manifest),
        alternatives=choices,
        advice=adapter_advice(cosine) if kept_adapters else hedged(advice(choices), predicted),
        saving=hedged(_saving(build, built, choices, base_bytes), predicted),
        unsuited=unsuited(build.draft, built, size, cosine) if weigh and not build.supposed else (),
    )


def tried_choice(one: Alternative, built: Built, seal_bits: int | None) -> Alternative:
    """A choice with what a dry run of it showed."""
    manifest, statistics = _in_the_end(built, seal_bits), built.statistics
    kept = mean_kept(noise_of(bank_lengths(manifest, statistics.known)))
    cosine = mean_cosine(summaries(manifest, statistics))
    return replace(present(one, built.bytes, kept, cosine), present=one.present)


def _in_the_end(built: Built, seal_bits: int | None) -> Manifest:
    """The manifest of a bank once its sums are cut to so many bits, if they are."""
    if seal_bits is None:
        return built.manifest
    sealed = built.manifest.with_sealed(as_sealed_to(built.manifest, seal_bits))
    return with_defaults(sealed, built.statistics.known)


def sealed_report(
    inputs: Inputs, build: Build, live: Built, sealed: Built, bits: int, *, weigh: bool
) -> PackReport:
    """The report of a bank that was sealed as it was packed: its tasks as measured while it was.

    What else it could be is predicted from the bank as it would be live.
    """
    report = pack_report(inputs, build, live, bits, dry_run=False, weigh=weigh)
    base = None if reads_far() else build.draft.base
    beside = lengths_beside(sealed.manifest, sealed.statistics, base)
    after = summaries(sealed.manifest, sealed.statistics, beside)
    kept = kept_on_average(sealed.manifest, sealed.statistics.known)
    whole = resized(report.alternatives, sealed.bytes, kept, mean_cosine(after))
    tasks = _summaries(build, after)
    return replace(report, bank_bytes=sealed.bytes, tasks=tasks, alternatives=whole)


def _summaries(build: Build, found: Sequence[TaskSummary]) -> tuple[TaskSummary, ...]:
    return tuple(map(task_summary, build.draft.coming, found))


def _targets_note(transform: Transform) -> list[str]:
    """What to say where a pattern finds no tensor to transform."""
    if transform.matched is None or transform.matched:
        return []
    return [f"--targets {transform.targets!r}: no tensor has such a name, so none is transformed"]


def _alternatives(
    build: Build, built: Built, size: int, lengths: Lengths, bits: int, cosine: float
) -> tuple[Alternative, ...]:
    """What other bits, groups and shares would weigh and give back; the best to the byte."""
    draft, groups = build.draft, build.draft.start.groups
    names = [name for unit in build.steps.ready for name in unit.names]
    outline = Outline(
        draft.base.tensors,
        names,
        lengths,
        [participant.index for participant in draft.coming],
        draft.start.capacity,
        wide=_wide(build),
    )
    here = groups, bits, draft.start.shares.get(0, 1)
    outline = outline.with_size(*here, size)
    kept = mean_kept(noise_of(lengths))
    found = marked(
        present(one, size, kept, cosine) if (one.groups, one.bits, one.share) == here else one
        for one in weigh_all(outline, group_choices(len(draft.coming), groups))
    )
    return _exact_where_shown(build, built, outline, found)


def _saving(
    build: Build, built: Built, choices: Sequence[Alternative], base_bytes: int
) -> str | None:
    """What sealing the bank would save: its small sums stay as wide as they are."""
    found = sealing(choices)
    if found is None:
        return None
    size = _sizer(build, built).here(build.steps, found.best.bits)
    return saving(choices, str(build.path), base_bytes, size)


def _sizer(build: Build, built: Built) -> Sizes:
    return Sizes(build.draft, built.manifest, built.statistics, build.most)


def _wide(build: Build) -> frozenset[str]:
    """The tensors whose tails are too heavy for 8 bits."""
    steps, units = build.steps, build.draft.units
    bits = steps.grids(units, 8, build.draft.start.capacity).bits
    return frozenset(n for unit, b in zip(units, bits, strict=True) if b == 16 for n in unit.names)


def _exact_where_shown(
    build: Build, built: Built, outline: Outline, choices: tuple[Alternative, ...]
) -> tuple[Alternative, ...]:
    """The choices, those that are told of with the bytes of the files that they would make."""
    sizes: dict[tuple[int, int, int], int] = {}
    sizer: Sizes | None = None
    while True:
        shown = [one for one in frontier(choices) if not one.present and _key(one) not in sizes]
        if not shown:
            return choices
        sizer = sizer or _sizer(build, built)
        told = [outline.defaults(*_key(one)) for one in shown]
        pairs = zip(shown, told, strict=True)
        sizes.update({_key(one): sizer.of(build.steps, one, some) for one, some in pairs})
        choices = marked(
            replace(one, bank_bytes=sizes[_key(one)], exact=True) if _key(one) in sizes else one
            for one in choices
        )


def _key(one: Alternative) -> tuple[int, int, int]:
    return one.groups, one.bits, one.share
