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
from randes_cli.build.sample import Spread
from randes_cli.core.stats import default_coefficient
from randes_cli.files.lora.merged import MergedAdapter
from randes_cli.files.manifest import Manifest
from randes_cli.plan import Unit, tensor_bytes
from randes_cli.reports import Alternative, PackReport
from randes_cli.specs import BaseStorage
from randes_cli.stats.alternatives import Outline, adapter_advice, advice, group_choices, weigh_all
from randes_cli.stats.stored import kept_energy, norm_rows, predictions

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

    def sampled_norms(self) -> F64:
        """‖Δ‖² from the sample alone, before anything is packed."""
        unit_of = {name: unit for unit in self.setup.units for name in unit.names}
        rows = norm_rows(list(self.setup.inputs.base.tensors.values()))
        made = np.zeros((len(rows), len(self.setup.participants)))
        for row, name in enumerate(rows):
            if name in unit_of:
                squares = np.array(self.spreads[unit_of[name]].squares)
                made[row] = squares * self.setup.inputs.base.tensors[name].elements
        return made

    def report(
        self, size: int, norms: F64, grams: F64 | None, manifest: Manifest | None
    ) -> PackReport:
        """The report of a bank of `size` bytes; without `manifest`, of one that may come."""
        setup, inputs = self.setup, self.setup.inputs
        read = self._read_bytes()
        tensors = list(inputs.base.tensors.values())
        groups = [participant.group for participant in setup.participants]
        bits = setup.seal_bits
        kept = None if bits is None else kept_energy(tensors, groups, dict.fromkeys(groups, bits))
        rows = norm_rows(tensors)
        cosines = predictions(rows, norms, self.layout.cells(), grams, groups, kept)
        spread_out = predictions(rows, norms, (), None, groups, kept)
        chosen = [default_coefficient(cosine) for cosine in spread_out]
        choices = self._alternatives(size, norms) if self.dry_run else ()
        mean = float(np.mean(spread_out))
        kept_adapters = inputs.storage is BaseStorage.zero
        merged = sum(isinstance(task.source, MergedAdapter) for task in inputs.tasks)
        return PackReport(
            bank=str(self.out),
            dry_run=self.dry_run,
            bank_bytes=size,
            base_bytes=tensor_bytes(tensors),
            separate_bytes=read,
            read_bytes=read,
            buffer_bytes=self.buffer_bytes,
            tasks=tuple(
                task_summary(opened, participant, cosine, coefficient, manifest, self._still(who))
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
            adapters="kept" if kept_adapters else "merged" if merged else None,
            merged=merged,
            alternatives=choices,
            advice=(
                adapter_advice(mean)
                if kept_adapters
                else advice(choices, len(groups), size, mean, setup.groups)
            ),
        )

    def _alternatives(self, size: int, norms: F64) -> tuple[Alternative, ...]:
        """What other bits and groups would weigh and give back."""
        setup, layout = self.setup, self.layout
        stepped = [unit for unit in setup.units if unit in self.exponents]
        names = {name for unit in stepped for name in unit.names}
        base = list(setup.inputs.base.tensors.values())
        outline = Outline(
            base,
            [tensor for tensor in base if tensor.name in names],
            norms,
            [participant.index for participant in setup.participants],
            layout.estimate(()),
        )
        bits, groups = setup.seal_bits or setup.options.bits, setup.groups
        return tuple(
            replace(one, bank_bytes=size, present=True)
            if (one.groups, one.bits) == (groups, bits)
            else one
            for one in weigh_all(outline, group_choices(len(setup.participants), groups))
        )

    def _still(self, who: int) -> frozenset[str]:
        """Superposed tensors whose sample shows no change of this participant."""
        fit = self.setup.participants[who].fit
        return frozenset(
            name
            for unit, found in self.spreads.items()
            for name in unit.names
            if not found.squares[who] and name in fit.superposed
        )

    def _read_bytes(self) -> int:
        """Bytes of the tensors of all inputs."""
        return sum(
            tensor.nbytes
            for source in [self.setup.inputs.base, *(p.checkpoint for p in self.setup.participants)]
            for tensor in source.tensors.values()
        )
