"""What a pack reports: sizes, predictions, and what other bits and groups would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from randes_cli.build.build import Build, Built
from randes_cli.build.inputs import Inputs
from randes_cli.build.records import task_summary
from randes_cli.core.prediction import Lengths
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.records import SealRecord
from randes_cli.plan import tensor_bytes
from randes_cli.reports import Alternative, PackReport
from randes_cli.specs import BaseStorage
from randes_cli.stats.alternatives import Outline, adapter_advice, advice, group_choices, weigh_all
from randes_cli.stats.stored import bank_lengths, with_defaults
from randes_cli.stats.summaries import summaries


def pack_report(
    inputs: Inputs, build: Build, built: Built, seal_bits: int | None, *, dry_run: bool
) -> PackReport:
    """The report of a bank that was built, or (a dry run) that would be."""
    tensors = list(inputs.base.source.tensors.values())
    manifest, start = built.manifest, build.draft.start
    if seal_bits is not None:
        groups = {task.group for task in manifest.tasks}
        manifest = manifest.with_sealed(dict.fromkeys(groups, SealRecord(seal_bits)))
    found = built.statistics.norms, built.statistics.rounded
    manifest, lengths = with_defaults(manifest, *found), bank_lengths(manifest, *found)
    predicted = summaries(manifest, built.statistics)
    size, bits = built.bytes, seal_bits or start.bits
    choices = _alternatives(build, size, lengths, bits) if dry_run else ()
    mean = float(np.mean([task.predicted_cosine for task in predicted]))
    kept_adapters = inputs.base.storage is BaseStorage.zero
    merged = sum(isinstance(one.source, MergedAdapter) for one in inputs.participants)
    read = build.read_bytes + (tensor_bytes(tensors) if build.base else 0)
    return PackReport(
        bank=str(build.path),
        dry_run=dry_run,
        bank_bytes=size,
        base_bytes=tensor_bytes(tensors),
        separate_bytes=build.read_bytes,
        read_bytes=read,
        buffer_bytes=build.workers.buffer_bytes,
        tasks=tuple(
            task_summary(participant, one)
            for participant, one in zip(build.draft.coming, predicted, strict=True)
        ),
        kept_exactly={p.name: dict(p.fit.exact) for p in inputs.participants},
        notes=inputs.base.notes,
        refused=inputs.refused,
        download_bytes=inputs.download_bytes,
        bits=bits,
        share=start.shares.get(0, 1),
        groups=start.groups,
        adapters="kept" if kept_adapters else "merged" if merged else None,
        merged=merged,
        alternatives=choices,
        advice=(
            adapter_advice(mean)
            if kept_adapters
            else advice(choices, len(predicted), size, mean, start.groups)
        ),
    )


def _alternatives(build: Build, size: int, lengths: Lengths, bits: int) -> tuple[Alternative, ...]:
    """What other bits and groups would weigh and give back."""
    draft, groups = build.draft, build.draft.start.groups
    names = {name for unit in build.steps.ready for name in unit.names}
    base = list(draft.base.tensors.values())
    outline = Outline(
        base,
        [tensor for tensor in base if tensor.name in names],
        lengths,
        [participant.index for participant in draft.coming],
        draft.estimate((), build.cells),
        draft.start.capacity,
        draft.start.shares.get(0, 1),
    )
    return tuple(
        replace(one, bank_bytes=size, present=True)
        if (one.groups, one.bits) == (groups, bits)
        else one
        for one in weigh_all(outline, group_choices(len(draft.coming), groups))
    )
