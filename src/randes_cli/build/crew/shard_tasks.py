"""What a worker of a cluster does: one shard of a bank, from work that is told by names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from randes_cli.build.crew.pieces import Piece, sink_for
from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import copies_into
from randes_cli.build.jobs.exact import Exact
from randes_cli.build.jobs.jobs import Places
from randes_cli.build.jobs.tally import Owner, Tally, TallyParts
from randes_cli.build.jobs.work import Bench, UnitWork, Work
from randes_cli.build.steps import Step
from randes_cli.cluster import Shared
from randes_cli.errors import CheckpointError
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.output import shard_maker
from randes_cli.files.location import Place
from randes_cli.files.source import NotFinite, Source
from randes_cli.plan import WHOLE, Span, Unit
from randes_cli.specs import RunOptions, TensorInfo
from randes_cli.workers import Progress, Workers

#: How the draft of a build is made anew, in a worker: it opens the inputs and drafts the bank.
Recipe: TypeAlias = Shared[Draft]


@dataclass(frozen=True, slots=True)
class ExactRef:
    """An exact tensor by names. `source` is whose it is: the base's, or a participant's index."""

    source: Owner
    name: str
    key: str | None
    owner: Owner | None
    skip: int
    twin: bool


@dataclass(slots=True)
class Selection:
    """Work by names: units by their number in the draft, each with its two steps (see `parts`)."""

    units: dict[int, Places] = field(default_factory=dict)
    steps: dict[int, tuple[Step | None, Step | None]] = field(default_factory=dict)
    exact: dict[tuple[Owner, str, str | None], ExactRef] = field(default_factory=dict)
    copies: dict[str, None] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0

    def add(self, unit: int, places: Places, nbytes: int, key: str | None = None) -> None:
        """Superpositions of a unit that are made; `key` is that of the one."""
        self.units[unit] = self.units.get(unit, frozenset()) | places
        self.cost(key, nbytes)

    def cost(self, key: str | None, nbytes: int) -> None:
        """So many bytes are read for a tensor of the bank (None: for none)."""
        self.nbytes += nbytes
        if key is not None:
            self.costs[key] = self.costs.get(key, 0) + nbytes

    def join(self, other: Selection) -> None:
        self.units.update(other.units)
        self.exact.update(other.exact)
        self.copies.update(other.copies)
        self.costs.update(other.costs)
        self.nbytes = max(self.nbytes, other.nbytes)

    def of(self, keys: Collection[str], units: Sequence[Unit]) -> Selection:
        """What of it makes these tensors; `units` are the draft's."""
        made, wanted = Selection(), set(keys)
        for number, places in self.units.items():
            names = units[number].names
            ours = {(g, at) for g, at in places if sum_key(g, names[at]) in wanted}
            if ours:
                made.units[number], made.steps[number] = frozenset(ours), self.steps[number]
        made.exact = {key: ref for key, ref in self.exact.items() if ref.key in wanted}
        made.copies = {key: None for key in self.copies if key in wanted}
        made.nbytes = sum(self.costs.get(key, 0) for key in wanted)
        return made


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What a worker does: a shard of a bank, or (None) what writes nothing.

    `closed`: nothing more comes into the shard. `piece`: only that of it is made.
    """

    bank: Place
    tensors: tuple[TensorInfo, ...] | None
    closed: bool
    selection: Selection
    run: RunOptions
    piece: Piece | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: digests of the shard, its name (or the path of one that is open).

    Of a piece its path, and digests by tensor.
    """

    digests: bytes | dict[str, bytes]
    made: str | Place | None
    tally: TallyParts


class Infinite(CheckpointError):
    """`NotFinite`, as it travels: without the source, but for whether it is the base."""

    def __init__(self, message: str, of_base: bool, tensor: str) -> None:
        super().__init__(message)
        self.of_base, self.tensor = of_base, tensor

    def __reduce__(self) -> tuple[type[Infinite], tuple[str, bool, str]]:
        return Infinite, (str(self), self.of_base, self.tensor)


@contextmanager
def travelling(base: Source) -> Iterator[None]:
    """In a worker: NotFinite goes to the driver as Infinite."""
    try:
        yield
    except NotFinite as error:
        raise Infinite(str(error), error.source is base, error.tensor) from None


@contextmanager
def arrived(base: Source) -> Iterator[None]:
    """On the driver: Infinite of the base is NotFinite again."""
    try:
        yield
    except Infinite as error:
        if error.of_base:
            raise NotFinite(str(error), base, error.tensor) from None
        raise


def workers_for(draft: Draft, run: RunOptions) -> Workers:
    """The threads of one worker of a cluster."""
    return Workers(
        replace(run, threads=max(1, run.threads)),
        list(draft.base.tensors.values()),
        (unit.layers for unit in draft.units),
    )


def make_shard(draft: Draft, task: ShardTask, progress: Progress) -> Done:
    """Do a task, in a worker. A shard whose values do not fit is not kept."""
    tally, workers = Tally(), workers_for(draft, task.run)
    span = WHOLE if task.piece is None else task.piece.span
    work = work_of(draft, task.selection, span)
    made: str | Place | None = None
    with shard_maker(task.bank) as folder, travelling(draft.base):
        sink = sink_for(folder, task.tensors or (), task.piece, closed=task.closed)
        if task.tensors is not None:
            sink.begin()
        if draft.old is not None:
            work.copies = copies_into(sink, draft.old, task.selection.copies, span)
        Bench(draft, sink, tally, workers, progress).do(work, "")
        if task.tensors is not None and not tally.peaks:
            made = sink.finish()
        return Done(sink.found(), made, tally.parts())


def work_of(draft: Draft, selection: Selection, span: Span) -> Work:
    """Work by names as work on what is open."""
    base = draft.deltas_from
    sources: dict[Owner, Source] = {p.index: p.source for p in [*draft.coming, *draft.leaving]}
    if base is not None:
        sources["base"] = base
    units = []
    for number, places in selection.units.items():
        unit, steps = draft.units[number], selection.steps[number]
        units.append(UnitWork(unit, draft.parts(unit, *steps), places, span))
    exact = [
        Exact(
            sources[one.source],
            one.name,
            one.key,
            one.owner,
            one.skip,
            base if one.twin else None,
            base,
            span,
        )
        for one in selection.exact.values()
    ]
    return Work(units, exact)
