"""What a pack reports: sizes, predictions, and what other bits and groups would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from randes_cli.build.build import Build, Built
from randes_cli.build.inputs import Inputs
from randes_cli.build.records import task_summary
from randes_cli.core.arrays import F64
from randes_cli.core.stats import default_coefficient
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.plan import tensor_bytes
from randes_cli.reports import Alternative, PackReport, TaskSummary
from randes_cli.specs import BaseStorage
from randes_cli.stats.alternatives import Outline, adapter_advice, advice, group_choices, weigh_all
from randes_cli.stats.stored import kept_energy, norm_rows, predictions


def pack_report(
    inputs: Inputs, build: Build, built: Built | None, seal_bits: int | None
) -> PackReport:
    """The report of a bank that was `built`; with None (a dry run), of one that may come."""
    tensors = list(inputs.base.source.tensors.values())
    groups = [participant.group for participant in inputs.participants]
    start = build.draft.start
    kept = None
    if seal_bits is not None:
        kept = kept_energy(tensors, groups, dict.fromkeys(groups, seal_bits))
    rows = norm_rows(tensors)
    norms = built.statistics.norms if built else _sampled_norms(build)
    grams = built.statistics.grams if built else None
    cosines = predictions(rows, norms, build.cells, grams, groups, kept)
    spread_out = predictions(rows, norms, (), None, groups, kept)
    size = built.bytes if built else build.estimate(seal_bits)
    bits = seal_bits or start.bits
    choices = () if built else _alternatives(build, size, norms, bits)
    mean = float(np.mean(spread_out))
    kept_adapters = inputs.base.storage is BaseStorage.zero
    merged = sum(isinstance(one.source, MergedAdapter) for one in inputs.participants)
    read = tensor_bytes(tensors) + build.read_bytes
    return PackReport(
        bank=str(build.path),
        dry_run=built is None,
        bank_bytes=size,
        base_bytes=tensor_bytes(tensors),
        separate_bytes=read,
        read_bytes=read,
        buffer_bytes=build.workers.buffer_bytes,
        tasks=_tasks(build, built, cosines, [default_coefficient(c) for c in spread_out]),
        kept_exactly={p.name: dict(p.fit.exact) for p in inputs.participants},
        notes=inputs.base.notes,
        refused=inputs.refused,
        download_bytes=inputs.download_bytes,
        bits=bits,
        groups=start.groups,
        adapters="kept" if kept_adapters else "merged" if merged else None,
        merged=merged,
        alternatives=choices,
        advice=(
            adapter_advice(mean)
            if kept_adapters
            else advice(choices, len(groups), size, mean, start.groups)
        ),
    )


def _sampled_norms(build: Build) -> F64:
    """‖Δ‖² from the sample alone, before anything is packed."""
    tensors, spreads = build.draft.base.tensors, build.steps.spreads
    rows = norm_rows(list(tensors.values()))
    made = np.zeros((len(rows), len(build.draft.coming)))
    for row, name in enumerate(rows):
        unit = build.draft.unit_of.get(name)
        if unit in spreads:
            made[row] = np.array(spreads[unit].squares) * tensors[name].elements
    return made


def _tasks(
    build: Build, built: Built | None, cosines: list[float], coefficients: list[float]
) -> tuple[TaskSummary, ...]:
    manifest = built.manifest if built else None
    pairs = zip(build.draft.coming, cosines, coefficients, strict=True)
    return tuple(
        task_summary(participant, cosine, coefficient, manifest, _unchanged(build, place))
        for place, (participant, cosine, coefficient) in enumerate(pairs)
    )


def _unchanged(build: Build, place: int) -> frozenset[str]:
    """Superposed tensors whose sample shows no change of the task at this place."""
    fit = build.draft.coming[place].fit
    return frozenset(
        name
        for unit, found in build.steps.spreads.items()
        for name in unit.names
        if not found.squares[place] and name in fit.superposed
    )


def _alternatives(build: Build, size: int, norms: F64, bits: int) -> tuple[Alternative, ...]:
    """What other bits and groups would weigh and give back."""
    draft, groups = build.draft, build.draft.start.groups
    names = {name for unit in build.steps.ready for name in unit.names}
    base = list(draft.base.tensors.values())
    outline = Outline(
        base,
        [tensor for tensor in base if tensor.name in names],
        norms,
        [participant.index for participant in draft.coming],
        draft.estimate((), build.cells),
    )
    return tuple(
        replace(one, bank_bytes=size, present=True)
        if (one.groups, one.bits) == (groups, bits)
        else one
        for one in weigh_all(outline, group_choices(len(draft.coming), groups))
    )
