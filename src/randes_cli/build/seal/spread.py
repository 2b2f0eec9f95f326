"""`pack --bits` spread over the machines of a cluster: sums wait in a worker, and go as codes.

A task makes all of some superpositions: the scales of one follow from all of its elements. Codes
go into pieces of the shards that they lie in; scales, which lie elsewhere, come to the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from randes_cli.build.crew.crew import Crew, bytes_for, set_steps
from randes_cli.build.crew.joining import Pieces, join_all, take_in
from randes_cli.build.crew.pieces import Item, Piece, PieceSink, cut, least, new_pieces
from randes_cli.build.crew.shard_tasks import (
    Done,
    Selection,
    ShardTask,
    arrived,
    travelling,
    work_of,
    workers_for,
)
from randes_cli.build.draft import Draft
from randes_cli.build.jobs.cutter import Cuts, Cutter
from randes_cli.build.jobs.sums import Sum
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.jobs.waiting import ALIGNED, WAITING, Arena
from randes_cli.build.jobs.work import Attempt, Bench, UnitWork
from randes_cli.core.agreement import Agreement
from randes_cli.files.bank.keys import parse_key
from randes_cli.files.bank.output import shard_maker
from randes_cli.files.bank.tensor_sink import Data
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.location import absolute
from randes_cli.files.spool import Spool
from randes_cli.files.upload import passing_place
from randes_cli.plan import WHOLE, Unit
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress


@dataclass(frozen=True, slots=True)
class CutTask:
    """A piece of a shard, and the superpositions whose codes it has."""

    shard: ShardTask
    sums: tuple[Sum, ...]
    groups: tuple[int, ...]
    bits: int


class CutDone(NamedTuple):
    """What came of one: scales by key, and how codes agree with their sums (see `Cutter`)."""

    done: Done
    scales: Mapping[str, bytes]
    found: Mapping[str, tuple[Agreement, int]]


class _CodesSink(PieceSink):
    """A piece of codes; scales, which are no part of it, are kept."""

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.scales: dict[str, bytes] = {}

    def write_whole(self, tensor: TensorInfo, data: Data) -> None:
        self.scales[tensor.name] = bytes(data[:])


def make_codes(draft: Draft, task: CutTask, progress: Progress) -> CutDone:
    """Do a task, in a worker. A piece whose values do not fit is not kept."""
    shard, tally, workers = task.shard, Tally(), workers_for(draft, task.shard.run)
    piece, selection = shard.piece, shard.selection
    if piece is None or shard.tensors is None:
        raise AssertionError(shard)
    width = {draft.units[at]: step.bits for at, (step, _) in selection.steps.items() if step}
    room = sum(one.elements * width[draft.unit_of[one.tensor.name]] // 8 for one in task.sums)
    arena = Arena(min(workers.beside(WAITING), room + ALIGNED * len(task.sums)))
    cuts = Cuts(task.sums, task.groups, task.bits, draft.unit_of)
    spool = Spool(passing_place())
    with shard_maker(shard.bank) as folder, travelling(draft.base):
        sink = _CodesSink(folder, shard.tensors, piece)
        cutter = Cutter(sink, cuts, arena, spool, tally, width.__getitem__)
        try:
            sink.begin()
            bench = Bench(draft, cutter, tally, workers, progress)
            bench.do(work_of(draft, selection, WHOLE), "")
            made = None if tally.peaks else sink.finish()
            return CutDone(Done(sink.found(), made, tally.parts()), sink.scales, cutter.found)
        finally:
            spool.close()


class CutCrew:
    """The driver's side: see `Apart`.

    Attributes:
        found: of each sum that is cut, by key, how its codes agree with it, and the part that
            values count in.
    """

    def __init__(self, crew: Crew, cuts: Cuts) -> None:
        self.crew, self.cuts = crew, cuts
        self.found: dict[str, tuple[Agreement, int]] = {}
        self._of = {one.key: one for one in cuts.sums}
        self._units = {cuts.unit_of[one.tensor.name] for one in cuts.sums}
        self._scales: dict[str, bytes] = {}
        self._pieces: dict[int, Pieces] = {}

    def takes(self, unit: Unit) -> bool:
        return unit in self._units

    def make(self, passes: Attempt, units: Sequence[UnitWork], phase: str) -> None:
        """Have codes made, and kept until all scales are there.

        A shard that must be made anew (steps became coarser) is made anew whole.
        """
        writer, names = passes.writer, {name for one in units for name in one.unit.names}
        writer.out.folder.prepare()
        keys = [one.key for one in self.cuts.sums if one.tensor.name in names]
        numbers = dict.fromkeys(map(writer.number_of, keys))
        items = {number: self._items(passes, number) for number in numbers}
        total = sum(item.nbytes for some in items.values() for item in some)
        most = least(self.crew.cluster.share(total), writer.out.path)
        tasks, at = list[CutTask](), list[int]()
        for number, some in items.items():
            tensors, _ = writer.contents(number)
            if number in self._pieces:
                self._pieces[number].release(writer.out.folder)
            self._pieces[number] = Pieces(tensors, True)
            for piece in new_pieces(cut(some, most), writer.out.path):
                self._pieces[number].wait()
                tasks.append(self._task(passes, tensors, piece))
                at.append(number)
        made = self.crew.cluster.map(
            make_codes, self.crew.held, tasks, phase=phase, total=total, progress=passes.progress
        )
        with arrived(passes.draft.base):
            for n, (done, scales, found) in made:
                passes.tally.take_in(done.tally, passes.draft.unit_of)
                made_of = tasks[n].shard.piece
                take_in(writer, self._pieces, at[n], made_of, done.made, done.digests)
                self._scales.update(scales)
                self.found.update(found)

    def _items(self, passes: Attempt, number: int) -> list[Item]:
        """The codes of a shard, with what is read for them: those of one tensor come together."""
        tensors = passes.writer.contents(number)[0]
        return [Item(t, self._cost(passes, t.name), 1) for t in tensors if t.name in self._of]

    def _cost(self, passes: Attempt, key: str) -> int:
        one, draft = self._of[key], passes.draft
        parts = draft.parts(self.cuts.unit_of[one.tensor.name], None, None)
        part = next(part for part in parts if part.group == one.group)
        return bytes_for(passes, part, one.tensor.name)

    def _task(self, passes: Attempt, tensors: Sequence[TensorInfo], piece: Piece) -> CutTask:
        draft, selection = passes.draft, Selection()
        numbers = {unit: number for number, unit in enumerate(draft.units)}
        for key in piece.keys:
            one, name = self._of[key], parse_key(key).name
            unit = self.cuts.unit_of[name]
            place = one.group, unit.names.index(name)
            selection.add(numbers[unit], frozenset({place}), 0)
        set_steps(passes, selection)
        bank, run = absolute(passes.writer.out.path), self.crew.run
        shard = ShardTask(bank, tuple(tensors), False, selection, run, piece)
        sums = tuple(self._of[key] for key in piece.keys)
        return CutTask(shard, sums, tuple(self.cuts.groups), self.cuts.bits)

    def finish(self, writer: BankWriter, progress: Progress) -> None:
        """Put shards together, now that all is there."""
        for one in self.cuts.sums:
            tensor = one.sealed(self.cuts.bits)[0]
            data, number = self._scales[tensor.name], writer.number_of(tensor.name)
            if number in self._pieces:
                self._pieces[number].put(tensor, data)
            else:
                writer.write_whole(tensor, data)
        join_all(self.crew.cluster, self.crew.held, writer, self._pieces, progress)
