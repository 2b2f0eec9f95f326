"""Work on a bank under way: what one pass does, or a worker of it, and a bench to do it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from randes_cli.build.draft import Draft
from randes_cli.build.jobs.copies import Copy
from randes_cli.build.jobs.cutter import Cutter
from randes_cli.build.jobs.exact import Exact, run_exact
from randes_cli.build.jobs.jobs import (
    Files,
    Job,
    Part,
    Places,
    input_bytes,
    nothing_waits,
    unit_jobs,
)
from randes_cli.build.jobs.many import run_many
from randes_cli.build.jobs.strips import run_job
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.jobs.together import Many, is_small, many_jobs
from randes_cli.build.steps import Steps
from randes_cli.core.kernel import Kernel
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.digests import digest
from randes_cli.files.location import Place
from randes_cli.files.source import Source
from randes_cli.plan import WHOLE, Rect, Span, Unit, chunks
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress, Workers

AnyJob: TypeAlias = Job | Many | Exact | Copy


@dataclass(frozen=True, slots=True)
class UnitWork:
    """What becomes of a unit's superpositions, or of some: (group, position) pairs.

    `span`: of these chunks.
    """

    unit: Unit
    parts: tuple[Part, ...]
    only: Places | None = None
    span: Span = WHOLE


@dataclass(slots=True)
class Work:
    """Superpositions, exact tensors and copies."""

    units: list[UnitWork] = field(default_factory=list)
    exact: list[Exact] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    def nbytes(self, base: Source | None) -> int:
        both: list[Exact | Copy] = [*self.exact, *self.copies]
        alike: dict[int, tuple[tuple[Part, ...], list[str]]] = {}
        for one in self.units:
            alike.setdefault(id(one.parts), (one.parts, []))[1].extend(one.unit.names)
        sums = sum(input_bytes(names, parts, base) for parts, names in alike.values())
        return sums + sum(one.nbytes for one in both)


class Attempt:
    """An attempt to write a bank, or without a `writer` to look at what it is made of.

    Attributes:
        tally: what was found so far.
    """

    def __init__(
        self,
        path: Place,
        draft: Draft,
        steps: Steps,
        progress: Progress,
        writer: BankWriter | None = None,
    ) -> None:
        self.path, self.draft, self.steps, self.progress = path, draft, steps, progress
        self.tally, self._writer = Tally(), writer

    @property
    def writer(self) -> BankWriter:
        if self._writer is None:
            raise AssertionError(self.path)
        return self._writer


class Bench:
    """Does work: from a draft's base and old bank, into a sink, for a tally."""

    def __init__(
        self, draft: Draft, sink: TensorSink, tally: Tally, workers: Workers, progress: Progress
    ) -> None:
        self.base, self.old, self.sink, self.tally = draft.deltas_from, draft.old, sink, tally
        self.workers, self.progress = workers, progress

    def do(
        self,
        work: Work,
        phase: str,
        *,
        write_base: bool = False,
        beside: Iterable[Callable[[], None]] = (),
    ) -> None:
        """All of it; meanwhile this thread takes the steps that are `beside`, as it can."""
        cutter = self.sink if isinstance(self.sink, Cutter) else None
        waiting = nothing_waits if cutter is None else cutter.waiting
        files = Files(self.base, self.old, self.sink, self.tally, write_base, waiting)
        shared = list(_shared(work.units))
        if cutter is not None:
            shared = [one for one in shared if not cutter.takes(one.tensor.name)]
        self._check_shared(shared)

        def one(kernel: Kernel, job: AnyJob) -> int:
            if isinstance(job, Exact):
                return run_exact(job, files.writer, files.tally)
            if isinstance(job, Copy):
                return job.into(files.writer)
            if isinstance(job, Many):
                done = run_many(files, kernel, self.workers.strip(), job)
            else:
                done = run_job(files, kernel, self.workers.strip(job.unit.layers), job)
            if cutter is not None:
                cutter.done(job)
            return done

        jobs = _jobs(work.units, shuffled=cutter is None)
        if cutter is not None:
            cutter.begin(jobs)
        copies: list[AnyJob] = [*work.exact, *work.copies]
        self.workers.run(
            [*jobs],
            one,
            phase=phase,
            total=work.nbytes(self.base),
            progress=self.progress,
            copies=copies,
            beside=beside,
        )
        self._digest_shared(shared)

    def _check_shared(self, shared: Sequence[Shared]) -> None:
        """Whether the old sums that shares build on are those written.

        Chunks of a share are not those of the base, which jobs go by: they are read by
        themselves, before the jobs and (`_digest_shared`) after them.
        """
        for one in shared:
            if self.old is None or not one.part.kept:
                continue
            size = one.tensor.nbytes // max(1, one.tensor.elements)
            for number, rect in one.chunks():
                raw = np.empty(rect.elements * size, np.uint8)
                self.old.read_into(one.tensor.name, rect.start * size, raw)
                if digest(raw) != self.old.digest(one.tensor.name, number):
                    raise self.old.damaged(one.tensor.name)

    def _digest_shared(self, shared: Sequence[Shared]) -> None:
        """Of a part of a share whoever puts the parts together makes them."""
        for one in shared:
            if one.span == WHOLE:
                self.sink.digest_written(one.tensor)


class Shared(NamedTuple):
    """The superposition of a share, as stored, or some chunks of its matrix."""

    tensor: TensorInfo
    part: Part
    span: Span

    def chunks(self) -> Iterator[tuple[int, Rect]]:
        """The chunks, as stored, that it has a part in."""
        share = self.part.share
        grid, last = chunks(share.rows, share.cols), self.span.last
        start = share.place(grid[self.span.first].start)
        stop = self.tensor.elements if last is None else share.place(grid[last].start)
        for number, rect in enumerate(chunks(*share.shape)):
            if rect.start < stop and start < rect.start + rect.elements:
                yield number, rect


def _shared(units: Sequence[UnitWork]) -> Iterator[Shared]:
    """The superpositions of shares that are made."""
    for one in units:
        for part in one.parts:
            for position, name in enumerate(one.unit.names):
                made = one.only is None or (part.group, position) in one.only
                if made and part.share.every > 1 and part.step is not None:
                    key, dtype = sum_key(part.group, name), f"I{part.step.bits}"
                    yield Shared(TensorInfo(key, dtype, part.share.shape), part, one.span)


def _jobs(units: Sequence[UnitWork], *, shuffled: bool) -> list[Job | Many]:
    """The jobs of units: small ones many at a time, and then the others.

    Sums that wait to be cut come a unit at a time: `shuffled` ones are not taken apart then.
    """
    small = [
        one
        for one in units
        if one.only is None
        and one.span == WHOLE
        and is_small(one.unit, one.parts, shuffled=shuffled)
    ]
    few = {id(one) for one in small}
    made: list[Job | Many] = [*many_jobs([(one.unit, one.parts) for one in small])]
    for one in units:
        made += unit_jobs(one.unit, one.parts, one.only, one.span) if id(one) not in few else ()
    return made
