"""A pass spread over the machines of a cluster: each worker makes whole shards.

The driver plans, and says by names what each shard holds; a worker opens the same inputs and has
the same plan. What it makes depends on nothing else, so work that is done twice gives the same
bytes, and a shard lies under the name of its content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from randes_cli.build.crew.joining import Pieces, join_all, take_in
from randes_cli.build.crew.pieces import Item, pieces_of
from randes_cli.build.crew.samples import Looks
from randes_cli.build.crew.shard_tasks import (
    ExactRef,
    Recipe,
    Selection,
    ShardTask,
    arrived,
    make_shard,
)
from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import Copy
from randes_cli.build.jobs.exact import Exact
from randes_cli.build.jobs.jobs import Part
from randes_cli.build.jobs.tally import Owner
from randes_cli.build.jobs.work import Attempt, UnitWork, Work
from randes_cli.cluster import Cluster
from randes_cli.files.bank.keys import base_key, parse_key, sum_key
from randes_cli.files.digests import chunk_count
from randes_cli.files.local.guard import reads_far
from randes_cli.files.location import RemotePath, absolute
from randes_cli.plan import Unit, chunks
from randes_cli.specs import RunOptions, TensorInfo

#: Bytes of input, about, that one task reads which writes nothing.
_READ = 2**30


class Apart(Protocol):
    """Who has workers make the superpositions of some units in another way."""

    def takes(self, unit: Unit, /) -> bool:
        """Whether it does, of a unit."""

    def make(self, passes: Attempt, units: Sequence[UnitWork], phase: str, /) -> None:
        """Have them made."""


@dataclass(slots=True)
class _Sorted:
    """Work by where it is done: `here`, by workers that write nothing, or a shard of `chosen`."""

    here: Work = field(default_factory=Work)
    loose: Selection = field(default_factory=Selection)
    chosen: dict[int, Selection] = field(default_factory=dict)

    def of(self, number: int) -> Selection:
        return self.chosen.setdefault(number, Selection())


class Crew:
    """The driver's side: cuts passes into tasks, and takes in what comes of them."""

    def __init__(self, cluster: Cluster, recipe: Recipe, run: RunOptions) -> None:
        self.cluster, self.recipe, self.run = cluster, recipe, run
        self.held = cluster.hold(recipe)
        self._shards: dict[int, Selection] = {}
        self.apart: Apart | None = None

    def looks(self, draft: Draft) -> Looks:
        """What has workers look at samples of a draft's inputs."""
        ahead = self.run.networked or reads_far()
        return Looks(self.cluster, self.recipe, self.held, draft, ahead)

    def afresh(self) -> Crew:
        """The same for another attempt, which has other shards."""
        self._shards, self.apart = {}, None
        return self

    def send(self, passes: Attempt, work: Work, phase: str, *, write_base: bool) -> Work:
        """Have workers do what they can; returns what is to be done here.

        A shard that has begun here is finished here. One that must be made anew (steps became
        coarser) is made anew whole.
        """
        apart, units = self.apart, list[UnitWork]()
        if apart is not None:
            units = [one for one in work.units if apart.takes(one.unit)]
            work = replace(work, units=[one for one in work.units if not apart.takes(one.unit)])
        found = self._sort(passes, work, write_base=write_base)
        for number, selection in found.chosen.items():
            self._shards.setdefault(number, Selection()).join(selection)
        tasks: list[tuple[int | None, Selection]] = [(n, self._shards[n]) for n in found.chosen]
        tasks += [(None, part) for part in _batches(found.loose)]
        self._do(passes, tasks, phase)
        if apart is not None and units:
            apart.make(passes, units, phase)
        return found.here

    def _sort(self, passes: Attempt, work: Work, *, write_base: bool) -> _Sorted:
        draft, made, base = passes.draft, _Sorted(), passes.draft.deltas_from
        exact = list(work.exact)
        if write_base and base is not None:
            there = {one.name for one in exact if one.owner == "base"}
            names = [tensor.name for tensor in draft.base.tensors.values()]
            exact += [
                Exact(base, name, base_key(name), "base") for name in names if name not in there
            ]
        elif draft.old is None and base is not None:  # no task has these: they are only read
            alone = (name for one in work.units if not one.parts for name in one.unit.names)
            exact += [Exact(base, name, None, "base") for name in alone]
        for one in exact:
            if one.key is None:
                _add_exact(made.loose, passes, one)
            elif _stays(passes, at := passes.writer.number_of(one.key)):
                made.here.exact.append(one)
            else:
                _add_exact(made.of(at), passes, one)
        for copy in work.copies:
            self._sort_copy(passes, copy, made)
        numbers = {unit: number for number, unit in enumerate(draft.units)}
        for unit_work in work.units:
            self._sort_unit(passes, unit_work, numbers[unit_work.unit], made)
        return made

    def _sort_copy(self, passes: Attempt, copy: Copy, made: _Sorted) -> None:
        writer = passes.writer
        for key in dict.fromkeys(chunk.key for chunk in copy.chunks):
            number = writer.number_of(key)
            if writer.has_bytes(key):
                continue
            if _stays(passes, number):
                made.here.copies.append(copy)
                return
            found = made.of(number)
            if key not in found.copies:
                found.copies[key] = None
                found.cost(key, passes.draft.old.info(key).nbytes if passes.draft.old else 0)

    def _sort_unit(self, passes: Attempt, work: UnitWork, number: int, made: _Sorted) -> None:
        unit = work.unit
        here: set[tuple[int, int]] = set()
        for part in work.parts:
            for position, name in enumerate(unit.names):
                place = frozenset({(part.group, position)})
                nbytes = bytes_for(passes, part, name)
                if part.step is None:
                    made.loose.add(number, place, nbytes)
                    continue
                at = passes.writer.number_of(key := sum_key(part.group, name))
                if _stays(passes, at):
                    here |= place
                else:
                    made.of(at).add(number, place, nbytes, key)
        if here:
            made.here.units.append(replace(work, only=frozenset(here)))

    def _do(self, passes: Attempt, tasks: list[tuple[int | None, Selection]], phase: str) -> None:
        """Have workers do tasks, and take in what they found."""
        if any(number is not None for number, _ in tasks):
            passes.writer.out.folder.prepare()
        total = sum(selection.nbytes for _, selection in tasks)
        most = self.cluster.share(total)
        made, cuts = list[ShardTask](), dict[int, Pieces]()
        of: list[int | None] = []
        for number, selection in tasks:
            set_steps(passes, selection)
            for task in self._tasks(passes, number, selection, most):
                of.append(number)
                made.append(task)
                if number is not None and task.piece is not None:
                    cuts.setdefault(number, Pieces(task.tensors or (), task.closed)).wait()
        results = self.cluster.map(
            make_shard, self.held, made, phase=phase, total=total, progress=passes.progress
        )
        with arrived(passes.draft.base):
            for at, done in results:
                number, piece = of[at], made[at].piece
                passes.tally.take_in(done.tally, passes.draft.unit_of)
                if number is not None:
                    take_in(passes.writer, cuts, number, piece, done.made, done.digests)
        if cuts:
            join_all(self.cluster, self.held, passes.writer, cuts, passes.progress)

    def _tasks(
        self, passes: Attempt, number: int | None, selection: Selection, most: int
    ) -> Iterator[ShardTask]:
        """A shard, or its pieces."""
        draft, run = passes.draft, self.run
        if number is None:
            yield ShardTask(absolute(passes.path), None, False, selection, run)
            return
        bank = absolute(passes.writer.out.path)
        tensors, more = passes.writer.contents(number)
        place = tuple(tensors), not more
        items = [_item(passes, tensor, selection) for tensor in tensors]
        for piece in pieces_of(items, most, bank):
            part = selection if piece is None else selection.of(piece.keys, draft.units)
            yield ShardTask(bank, *place, part, run, piece)


def _item(passes: Attempt, tensor: TensorInfo, selection: Selection) -> Item:
    """A tensor, with the chunks of it that can be made apart.

    Of a share that is summed they are those of the tensor's matrix, which jobs go by; none where
    the share is of another one (of a convolution).
    """
    key, nbytes = parse_key(tensor.name), selection.costs.get(tensor.name, 0)
    summed = key.kind == "sum" and tensor.name not in selection.copies
    share = passes.draft.share(int(key.owner), key.name) if summed else None
    if share is None or share.every == 1:
        return Item(tensor, nbytes, chunk_count(tensor))
    matrix = passes.draft.base.tensors[key.name].matrix
    away = isinstance(passes.writer.out.path, RemotePath)  # digests would have it read again
    if away or matrix != (share.rows, share.cols):
        return Item(tensor, nbytes, 1)
    return Item(tensor, nbytes, len(chunks(*matrix)), share=share)


def _stays(passes: Attempt, number: int) -> bool:
    """Whether a shard is made here: it has begun to, or may still grow and has no place to wait."""
    writer = passes.writer
    away = isinstance(writer.out.path, RemotePath)
    return writer.is_here(number) or (away and writer.contents(number)[1])


def set_steps(passes: Attempt, selection: Selection) -> None:
    """Say with which steps a selection is made."""
    given, ready, units = passes.steps.given, passes.steps.ready, passes.draft.units
    selection.steps = {at: (ready.get(units[at]), given.get(units[at])) for at in selection.units}


def bytes_for(passes: Attempt, part: Part, name: str) -> int:
    """Bytes that are read, about, for a superposition of a tensor."""
    base = passes.draft.deltas_from
    ours = 0 if base is None else base.tensors[name].nbytes
    theirs = (member.fit.superposed.get(name) for member in part.members)
    return ours + sum(tensor.nbytes for tensor in theirs if tensor is not None)


def _add_exact(selection: Selection, passes: Attempt, one: Exact) -> None:
    members = [*passes.draft.coming, *passes.draft.leaving]
    source: Owner = next((p.index for p in members if p.source is one.source), "base")
    ref = ExactRef(source, one.name, one.key, one.owner, one.skip, one.twin is not None)
    selection.exact[source, one.name, one.key] = ref
    selection.cost(one.key, one.nbytes)


def _batches(loose: Selection) -> Iterator[Selection]:
    """What writes nothing, in tasks of about as many bytes."""
    count = max(1, -(-loose.nbytes // _READ))
    made = [Selection() for _ in range(count)]
    for at, (unit, places) in enumerate(loose.units.items()):
        made[at % count].add(unit, places, 0)
    for at, (key, ref) in enumerate(loose.exact.items()):
        made[at % count].exact[key] = ref
    for part in made:
        part.nbytes = loose.nbytes // count
        if part.units or part.exact:
            yield part
