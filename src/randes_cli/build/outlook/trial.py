"""What a dry run says of sealing: the cut is tried on a sample of every superposition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.sums import fitted_to, no_squares
from randes_cli.build.samples.grams import signs_on
from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F32, F64
from randes_cli.core.codes import packed_bytes
from randes_cli.core.grid import raised_exponent
from randes_cli.core.kernel import GRID_LIMIT
from randes_cli.core.seal_passes import Scales, Units, add_squares, cut
from randes_cli.core.share import Share
from randes_cli.files.bank.checks import cut_shape
from randes_cli.files.source import Sample, Source
from randes_cli.plan import STEP_SAMPLE, Unit, sample_runs, seal_matrix, sealable, share_of
from randes_cli.specs import TensorInfo

#: Rows of a sample that scales of columns are taken from; of fewer they would follow the sample.
_ROWS = 64


def sampled_cuts(
    base: Source | None,
    tensors: Mapping[str, TensorInfo],
    participants: Sequence[Participant],
    exponents: Mapping[Unit, int],
    rows: Sequence[str],
    bits: int,
    shares: Mapping[int, int],
) -> dict[int, F64]:
    """What sealing would make of each group's superpositions, as ``stats/sealed/<group>`` has it.

    A tensor that is its own sample is cut as sealing cuts it; of a larger one the sample is, and
    the sums are scaled to the whole. `rows` are the tensors' names.
    """
    groups = sorted({one.group for one in participants})
    made = {group: np.zeros(cut_shape(len(rows))) for group in groups}
    row = {name: number for number, name in enumerate(rows)}
    for unit, exponent in exponents.items():
        if not sealable(tensors[unit.names[0]]):
            continue
        trial = _Trial(base, participants, unit, exponent, bits)
        for position, name in enumerate(unit.names):
            for group, found in trial.at(position, tensors[name], shares).items():
                made[group][:, row[name]] = found
    return made


class _Trial:
    """The superpositions of one unit, on the step sample."""

    def __init__(
        self,
        base: Source | None,
        participants: Sequence[Participant],
        unit: Unit,
        exponent: int,
        bits: int,
    ) -> None:
        self.unit, self.exponent, self.bits = unit, exponent, bits
        self.sample = Sample(base, sample_runs(unit.rows, unit.cols, STEP_SAMPLE))
        self.participants = [one for one in participants if one.meets(unit)]
        self.orders = [unit.order(one.seed, one.index) for one in self.participants]

    def at(
        self, position: int, tensor: TensorInfo, shares: Mapping[int, int]
    ) -> dict[int, tuple[float, float, float]]:
        """‖S‖², ⟨S, Q⟩ and ‖Q‖² of every group that has a delta at a position."""
        signed: dict[int, list[F32]] = {}
        for one, order in zip(self.participants, self.orders, strict=True):
            delta = one.delta(self.sample, self.unit.names[order[position]])
            if delta is not None and delta.any():
                flips = self.unit.flips(one.seed, position)
                signed.setdefault(one.group, []).append(
                    delta * signs_on(self.unit, flips, self.sample.runs)
                )
        return {
            group: self._moments(found, self._share(tensor, group, shares))
            for group, found in signed.items()
        }

    def _share(self, tensor: TensorInfo, group: int, shares: Mapping[int, int]) -> Share:
        whole, most = share_of(tensor, group, shares), self.sample.elements
        if most == tensor.elements:
            return whole
        cols = min(seal_matrix(tensor)[1], self.sample.runs[0].elements)
        return Share(most // cols, cols, whole.every, group)

    def _moments(self, deltas: Sequence[F32], share: Share) -> tuple[float, float, float]:
        exponent, total = self._sum(deltas, share)
        units = share.take(total, 0)
        sums = no_squares(share)
        add_squares(units, 0, *sums)
        fitted = fitted_to(sums, share, self.bits)
        if share.rows < _ROWS and len(total) < self.unit.rows * self.unit.cols:
            fitted = fitted[0], np.ones_like(fitted[1])
        scales = Scales.of(fitted, share, self.bits)
        codes = np.empty(packed_bytes(len(units), self.bits), np.uint8)
        near = cut(units, 0, self.bits, scales, codes)
        near = Agreement(int(sums[0].sum())).joined(near)
        factor = self.unit.rows * self.unit.cols / len(total)
        squares, crossed, length = near.moments(exponent, scales.part)
        return factor * squares, factor * crossed, factor * length

    def _sum(self, deltas: Sequence[F32], share: Share) -> tuple[int, Units]:
        """The step that holds the sum of a group's rounded deltas, and that sum."""
        exponent, count = self.exponent, share.rows * share.cols
        while True:
            step = np.float32(2.0**-exponent)
            rounded = [np.rint(delta[:count] * step).astype(np.int64) for delta in deltas]
            total = sum(rounded, np.zeros(count, np.int64))
            peak = max(int(np.abs(one).max(initial=0)) for one in [*rounded, total])
            raised = raised_exponent(exponent, peak) if peak > GRID_LIMIT else exponent
            if raised == exponent:
                return exponent, np.clip(total, -GRID_LIMIT, GRID_LIMIT).astype(np.int16)
            exponent = raised
