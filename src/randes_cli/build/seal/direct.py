"""A new bank whose groups are sealed as they are packed: the bytes of a live bank that is sealed.

Where a tensor lies must be known before the first is written. What could change that is looked for
in a pass of its own: tensors that no sample showed to change, exact ones that may be the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from randes_cli.build.altered import check_bytes
from randes_cli.build.build import Build, Built
from randes_cli.build.draft import Draft
from randes_cli.build.fill import base_outside, differs, embeds, found_late
from randes_cli.build.jobs.copies import closing_tensors
from randes_cli.build.jobs.cutter import Cuts, Cutter
from randes_cli.build.jobs.exact import Exact
from randes_cli.build.jobs.sums import Sum, measured_tensors, moments_of, place_sealed
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.jobs.waiting import Arena
from randes_cli.build.jobs.work import Attempt, Bench, UnitWork, Work
from randes_cli.build.layout import as_sealed_to
from randes_cli.build.passes import Passes
from randes_cli.build.steps import Steps
from randes_cli.core.agreement import Agreement
from randes_cli.files.atomic import check_space
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.entries import header_room
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.output import bank_output
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.location import Place
from randes_cli.files.spool import spool_for
from randes_cli.plan import Unit, chunks, sealable
from randes_cli.specs import TensorInfo
from randes_cli.stats.coefficients import with_defaults
from randes_cli.stats.stored import Cells
from randes_cli.threads import meanwhile

if TYPE_CHECKING:
    from randes_cli.build.crew.crew import Crew

R = TypeVar("R")

#: Of each sum that is cut, by key, what `Cutter.found` has.
Found: TypeAlias = Mapping[str, tuple[Agreement, int]]


def write_sealed(build: Build, bits: int, report: Callable[[Built, Built], R]) -> R:
    """Write a new bank with every group cut to `bits`, and return what `report` says of it.

    It is called before the commit, with the bank as it would be live, and as it is. Raises what
    `Build.write` raises.
    """
    return build.committed(build.estimate(bits), partial(_attempt, build, bits), report)


def _attempt(
    build: Build, bits: int, path: Place, most: int | None, report: Callable[[Built, Built], R]
) -> R:
    layout, looked = _laid_out(build, bits)
    size, crew = build.estimate(bits), build.crew
    if crew is None:
        check_space(path, size + _spooled(build, layout))
    elif isinstance(path, Path):  # in a store each worker asks for its own
        check_space(path, size)
    where = bank_output(path, force=build.force, most=most, progress=build.progress)
    with where as out, spool_for(path) as spool, build.relation() as relation:
        out.reserve(size)
        passes = build.passes(BankWriter(out, header_room(layout.candidates)), relation)
        passes.tally.take_in(looked.parts(), build.draft.unit_of)
        layout.place(passes.writer)
        if crew is not None:
            found = _run_elsewhere(build, passes, layout, crew, looked)
        else:
            arena, cuts = Arena(build.waiting_bytes), layout.cuts
            cutter = Cutter(passes.writer, cuts, arena, spool, passes.tally, build.steps.width)
            passes.bench.sink = cutter
            found = cutter.found
            _run(build, passes, looked)

        def end() -> None:  # the commit waits for both
            out.index.send()
            spool.close()

        with meanwhile(end):
            return report(*_finished(build, passes, layout, found))


def _run_elsewhere(
    build: Build, passes: Passes, layout: SealedLayout, crew: Crew, looked: Tally
) -> Found:
    from randes_cli.build.seal.spread import CutCrew

    passes.crew = crew.afresh()
    passes.crew.apart = cuts = CutCrew(crew, layout.cuts)
    _run(build, passes, looked)
    cuts.finish(passes.writer, build.progress)
    return cuts.found


def _laid_out(build: Build, bits: int) -> tuple[SealedLayout, Tally]:
    """Where all goes, and what was found on the way to know that."""
    draft, steps = build.draft, build.steps
    attempt = Attempt(build.path, draft, steps, build.progress)
    tally = attempt.tally
    waiting = [unit for unit in draft.entered if unit not in steps.ready]
    twins = [one for one in draft.exact if one.twin]
    if waiting or twins:
        parts = [draft.parts(unit, None, steps.given.get(unit)) for unit in waiting]
        looks = [UnitWork(unit, some) for unit, some in zip(waiting, parts, strict=True)]
        work, phase = Work(looks, [replace(one, key=None) for one in twins]), "looking through"
        if build.crew is not None:
            build.crew.afresh().send(attempt, work, phase, write_base=False)
        else:
            bench = Bench(draft, _Nowhere(), tally, build.workers, build.progress)
            bench.do(work, phase)
    return SealedLayout(draft, steps, build.cells, bits, *found_late(attempt)), tally


def _run(build: Build, passes: Passes, looked: Tally) -> None:
    """Superpose and cut what changes, and write what is exact. Raises TooNarrow, Altered."""
    draft, ready = build.draft, build.steps.ready
    units = [unit for unit in draft.units if unit in ready and unit in draft.entered]
    exact = [one for one in draft.exact if not one.twin or differs(looked, one)]
    exact += base_outside(passes, units)
    passes.run(units, exact, build.phase, write_base=embeds(passes))
    passes.settle()
    check_bytes(passes)


def _finished(
    build: Build, passes: Passes, layout: SealedLayout, cut: Found
) -> tuple[Built, Built]:
    """Write what follows from all; the bank as it would be live, and as it is."""
    manifest, statistics = build.gathered(passes)
    found = [(one, *cut[one.key]) for one in layout.sums]
    base = build.draft.base.tensors
    moments = moments_of(base, manifest.steps, layout.groups, found)
    known = replace(statistics.known, cut=moments)
    sealed = manifest.with_sealed(as_sealed_to(manifest, layout.bits))
    sealed = with_defaults(sealed, known)
    for tensor, group in zip(layout.measured, layout.groups, strict=True):
        passes.writer.add_whole(tensor, moments[group].astype("<f8").tobytes())
    size = passes.writer.finish(sealed)
    after = replace(statistics, known=known)
    return Built(size, manifest, statistics), Built(size, sealed, after)


def _spooled(build: Build, layout: SealedLayout) -> int:
    """Bytes that sums take on their way to codes, at the most: units' of each thread, and one's."""
    sizes: dict[str, int] = {}
    for one in layout.sums:
        unit = build.draft.unit_of[one.tensor.name]
        size = one.elements * build.steps.width(unit) // 8
        sizes[unit.names[0]] = sizes.get(unit.names[0], 0) + size
    return sum(sorted(sizes.values())[-build.workers.threads - 1 :])


class _Nowhere(TensorSink):
    """The sink of jobs that only look."""

    def has_bytes(self, key: str) -> bool:
        raise AssertionError(key)

    def file_of(self, key: str) -> AbstractContextManager[tuple[OutputFile, int]]:
        raise AssertionError(key)

    def files_of(self, keys: Sequence[str]) -> AbstractContextManager[list[tuple[OutputFile, int]]]:
        raise AssertionError(keys)

    def container_of(self, key: str) -> Container:
        raise AssertionError(key)

    def arrived(self, key: str, chunks: Iterable[int]) -> None:
        raise AssertionError(key)


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
