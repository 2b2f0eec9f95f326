"""What a pack reports: sizes, predictions, and what other bits and groups would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from randes_cli.build.layout import Layout
from randes_cli.build.pack_setup import Setup
from randes_cli.build.records import task_summary
from randes_cli.build.sample import SampledLengths, Spread, sampled_lengths
from randes_cli.core.prediction import Grams, Lengths, moments
from randes_cli.files.manifest import Manifest
from randes_cli.plan import Unit, tensor_bytes
from randes_cli.reports import Alternative, PackReport
from randes_cli.specs import BaseStorage
from randes_cli.stats.alternatives import Outline, adapter_advice, advice, group_choices, weigh_all
from randes_cli.stats.stored import (
    alone_in,
    cells_of,
    changed_rows,
    default_coefficients,
    gather_grams,
    kept_energy,
    norm_rows,
    sealable_rows,
    shuffled_rows,
)
from randes_cli.workers import Progress

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Reporting:
    """What a report is made from; steps and samples fill while the bank is packed."""

    setup: Setup
    layout: Layout
    exponents: Mapping[Unit, int]
    spreads: Mapping[Unit, Spread]
    out: Path
    dry_run: bool
    buffer_bytes: int

    def _supposed(self) -> SampledLengths:
        """All participants alike: nothing of their data is at hand."""
        base, participants = self.setup.inputs.base.tensors, self.setup.participants
        rows = norm_rows(base.values())
        there = [[name in p.fit.superposed for p in participants] for name in rows]
        changed = np.array(there, np.bool_).reshape(len(rows), len(participants))
        sizes = np.array([base[name].elements for name in rows], np.float64)
        norms: F64 = np.where(changed, sizes[:, None], 0.0)
        return SampledLengths(norms, np.stack([norms, norms]), changed)

    def _lengths(self, norms: F64, rounded: F64, changed: NDArray[np.bool_]) -> Lengths:
        setup = self.setup
        groups = tuple(participant.group for participant in setup.participants)
        sealed = {} if setup.seal_bits is None else dict.fromkeys(groups, setup.seal_bits)
        base = list(setup.inputs.base.tensors.values())
        tasks = [(participant.seed, participant.index) for participant in setup.participants]
        order = shuffled_rows(base, setup.options.transform, tasks)
        left = kept_energy(sealable_rows(base), sealed)
        return Lengths(norms, rounded[0], rounded[1], changed, groups, order, left)

    def dry(self, size: int, progress: Progress) -> PackReport:
        """The report of a bank that may come, from samples alone."""
        inputs, participants = self.setup.inputs, self.setup.participants
        rows = norm_rows(inputs.base.tensors.values())
        found, grams = self._supposed(), Grams.none(len(rows))
        if not inputs.away:
            found = sampled_lengths(inputs.base, participants, self.exponents, rows)
            cells = self.layout.cells()
            made = gather_grams(inputs.base, participants, self.exponents, cells, progress)
            grams = Grams(made[:, 1], cells_of(rows, cells))
        lengths = self._lengths(found.norms, found.rounded, found.changed)
        return self._report(size, lengths, grams, None)

    def report(
        self, size: int, norms: F64, rounded: F64, grams: F64, manifest: Manifest
    ) -> PackReport:
        """The report of a bank of `size` bytes, from its statistics."""
        lengths = self._lengths(norms, rounded, changed_rows(manifest))
        met = Grams(grams[:, 1], cells_of(norm_rows(manifest.base.tensors), manifest.cells))
        return self._report(size, lengths, met, manifest)

    def _report(
        self, size: int, lengths: Lengths, grams: Grams, manifest: Manifest | None
    ) -> PackReport:
        setup, inputs = self.setup, self.setup.inputs
        read = self._read_bytes()
        tensors = list(inputs.base.tensors.values())
        groups, bits = lengths.groups, setup.seal_bits
        cosines = moments(lengths, grams).cosine.tolist()
        chosen = default_coefficients(lengths, alone_in(groups, (), lengths.left))
        choices = self._alternatives(size, lengths) if self.dry_run else ()
        still = self._still(lengths)
        mean = float(np.mean(cosines))
        return PackReport(
            bank=str(self.out),
            dry_run=self.dry_run,
            bank_bytes=size,
            base_bytes=tensor_bytes(tensors),
            separate_bytes=read,
            read_bytes=read,
            buffer_bytes=self.buffer_bytes,
            tasks=tuple(
                task_summary(opened, participant, cosine, coefficient, manifest, still[who])
                for who, (opened, participant, cosine, coefficient) in enumerate(
                    zip(inputs.tasks, setup.participants, cosines, chosen, strict=True)
                )
            ),
            kept_exactly={p.name: dict(p.fit.exact) for p in setup.participants},
            notes=inputs.base_notes,
            refused=inputs.refused,
            download_bytes=inputs.download_bytes,
            bits=bits or setup.options.bits,
            groups=setup.groups,
            alternatives=choices,
            advice=(
                adapter_advice(mean)
                if inputs.storage is BaseStorage.zero
                else advice(choices, len(groups), size, mean, setup.groups)
            ),
        )

    def _alternatives(self, size: int, lengths: Lengths) -> tuple[Alternative, ...]:
        """What other bits and groups would weigh and give back."""
        setup, layout = self.setup, self.layout
        stepped = [unit for unit in setup.units if unit in self.exponents]
        names = {name for unit in stepped for name in unit.names}
        base = list(setup.inputs.base.tensors.values())
        outline = Outline(
            base,
            [tensor for tensor in base if tensor.name in names],
            lengths,
            [participant.index for participant in setup.participants],
            layout.estimate(()),
            setup.capacity,
        )
        bits, groups = setup.seal_bits or setup.options.bits, setup.groups
        return tuple(
            replace(one, bank_bytes=size, present=True)
            if (one.groups, one.bits) == (groups, bits)
            else one
            for one in weigh_all(outline, group_choices(len(setup.participants), groups))
        )

    def _still(self, lengths: Lengths) -> list[frozenset[str]]:
        """Superposed tensors that show no change, by participant."""
        rows = norm_rows(self.setup.inputs.base.tensors.values())
        return [
            frozenset(
                n for n, c in zip(rows, there, strict=True) if n in p.fit.superposed and not c
            )
            for p, there in zip(self.setup.participants, lengths.changed.T, strict=True)
        ]

    def _read_bytes(self) -> int:
        """Bytes of the tensors of all inputs."""
        return sum(
            tensor.nbytes
            for source in [self.setup.inputs.base, *(p.checkpoint for p in self.setup.participants)]
            for tensor in source.tensors.values()
        )
