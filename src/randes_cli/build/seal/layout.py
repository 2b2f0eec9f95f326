"""What a new bank holds whose groups are sealed as they are packed, in the order of its file."""

from __future__ import annotations

from collections.abc import Sequence

from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import closing_tensors
from randes_cli.build.jobs.cutter import Cuts
from randes_cli.build.jobs.exact import Exact
from randes_cli.build.jobs.sums import Sum, measured_tensors, place_sealed
from randes_cli.build.steps import Steps
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.writer import BankWriter
from randes_cli.plan import Unit, chunks, sealable
from randes_cli.specs import TensorInfo
from randes_cli.stats.stored import Cells


class SealedLayout:
    """As sealing the live bank of a draft would leave it.

    `late` are units that only a look through all of their deltas showed to change, `differ` the
    exact tensors that turned out to differ from the base's; the steps of both are known.

    Attributes:
        groups: those that hold a task.
        kept: what a live bank has, too: base, small sums, exact tensors, statistics, files.
        sums: those that are cut.
        measured: what sealing says of each group.
    """

    def __init__(
        self,
        draft: Draft,
        steps: Steps,
        cells: Cells,
        bits: int,
        late: Sequence[Unit],
        differ: Sequence[Exact],
    ) -> None:
        self.draft, self.bits = draft, bits
        self.groups = sorted({participant.group for participant in draft.coming})
        self.measured = measured_tensors(draft.base.tensors, self.groups)
        sums = draft.live_sums(steps, set(draft.units).difference(late))
        exact = [one.kept for one in draft.exact if one.twin is None]
        later = [
            tensor
            for group in range(draft.start.groups if late else 0)
            for unit in late
            if group in draft.entered[unit]
            for tensor in draft.sums((group, unit), steps.width(unit))
        ]
        live = [*sums, *exact, *later, *(one.kept for one in differ)]
        self.sums = self._cut({tensor.name: tensor for tensor in live})
        gone = {one.key for one in self.sums}
        kept = [tensor for tensor in live if tensor.name not in gone]
        last = [*draft.beside(cells), *(tensor for tensor, _ in draft.new_files())]
        self.kept = [*draft.base_table.values(), *kept, *last]

    def _cut(self, live: dict[str, TensorInfo]) -> list[Sum]:
        """Group by group, in the order of the base: see `sums_of`."""
        return [
            Sum(group, tensor, self.draft.share(group, name), chunks(*live[key].matrix))
            for group in self.groups
            for name, tensor in self.draft.base.tensors.items()
            if (key := sum_key(group, name)) in live and sealable(tensor)
        ]

    @property
    def cuts(self) -> Cuts:
        return Cuts(self.sums, self.groups, self.bits, self.draft.unit_of)

    @property
    def candidates(self) -> list[TensorInfo]:
        """Tensors that the header has room for, in the order of a seal."""
        made = [tensor for one in self.sums for tensor in one.sealed(self.bits)]
        return [*self.kept, *made, *self.measured, *closing_tensors()]

    def place(self, writer: BankWriter) -> None:
        """Place all but what sealing says."""
        for tensor in self.kept:
            writer.place(tensor)
        writer.close_shard()
        place_sealed(writer, self.sums, self.bits)
