"""Passes over the units of a bank under way: jobs, exact tensors and copies for all threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from randes_cli.build.copies import Copy, place_copies
from randes_cli.build.draft import Draft
from randes_cli.build.exact import Exact, run_exact
from randes_cli.build.jobs import Files, Job, Part, unit_bytes, unit_jobs
from randes_cli.build.steps import BeyondGrid, Steps
from randes_cli.build.strips import run_job
from randes_cli.build.tally import Tally
from randes_cli.core.grid import LIMIT
from randes_cli.core.kernel import Kernel
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.bank_keys import base_key, sum_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.base import BankBase
from randes_cli.files.digests import digest
from randes_cli.files.location import Place
from randes_cli.files.source import Source
from randes_cli.plan import Unit, chunks
from randes_cli.workers import Progress, Workers

AnyJob: TypeAlias = Job | Exact | Copy


class TooNarrow(Exception):
    """These units passed the range of 8 bits."""

    def __init__(self, units: set[Unit]) -> None:
        super().__init__(units)
        self.units = units


class Passes:
    """The passes of one attempt to write a bank, and what they found.

    Attributes:
        base: the base that deltas are taken from; None where it is all zeros.
        tally: what was found so far.
    """

    def __init__(
        self,
        path: Place,
        draft: Draft,
        steps: Steps,
        base: Source | None,
        writer: BankWriter,
        workers: Workers,
        progress: Progress,
    ) -> None:
        self.path, self.draft, self.steps, self.base = path, draft, steps, base
        self.writer, self.workers, self.progress = writer, workers, progress
        self.tally = Tally()
        self._waiting: list[Copy] = []

    def take_over(self, keys: Iterable[str]) -> None:
        """Place tensors of the old bank; their bytes are copied by the next pass."""
        if self.draft.old is not None:
            self._waiting += place_copies(self.writer, self.draft.old, keys)

    def copy_waiting(self) -> None:
        """Copy what was placed since the last pass."""
        for copy in self._waiting:
            copy.into(self.writer)
        self._waiting = []

    def run(
        self,
        units: Sequence[Unit],
        exact: Sequence[Exact],
        phase: str,
        *,
        write_base: bool = False,
    ) -> None:
        """Run every job of these units, the exact tensors, and the copies that wait."""
        files = Files(self.base, self.draft.old, self.writer, self.tally, write_base)
        given, ready = self.steps.given, self.steps.ready
        work = [(u, self.draft.parts(u, ready.get(u), given.get(u))) for u in units]
        copies: list[Exact | Copy] = [*exact, *self._waiting]
        self._waiting = []
        shared = list(_shared(work))
        self._check_shared(shared)
        total = sum(unit_bytes(unit, parts, self.base) for unit, parts in work)
        total += sum(copy.nbytes for copy in copies)

        def one(kernel: Kernel, job: AnyJob) -> int:
            if isinstance(job, Job):
                return run_job(files, kernel, self.workers.strip(job.unit.layers), job)
            if isinstance(job, Exact):
                return run_exact(job, files.writer, files.tally)
            return job.into(files.writer)

        self.workers.run(
            mixed([job for unit, parts in work for job in unit_jobs(unit, parts)], copies),
            one,
            phase=phase,
            total=total,
            progress=self.progress,
        )
        self._digest_shared(shared)
        self._check_base()

    def _check_shared(self, shared: Sequence[_Shared]) -> None:
        """Whether the old sums that shares build on are those written.

        Chunks of a share are not those of the base, which jobs go by: they are read by
        themselves, before the jobs and (`_digest_shared`) after them.
        """
        old = self.draft.old
        for key, shape, bits, kept in shared:
            if old is None or not kept:
                continue
            for number, rect in enumerate(chunks(*shape)):
                raw = np.empty(rect.elements * bits // 8, np.uint8)
                old.read_into(key, rect.start * bits // 8, raw)
                if digest(raw) != old.digest(key, number):
                    raise old.damaged(key)

    def _digest_shared(self, shared: Sequence[_Shared]) -> None:
        for key, shape, bits, _ in shared:
            for number, rect in enumerate(chunks(*shape)):
                raw = np.empty(rect.elements * bits // 8, np.uint8)
                self.writer.read(key, rect.start * bits // 8, raw)
                self.writer.set_digest(key, number, digest(raw))

    def _check_base(self) -> None:
        """Whether the base that deltas were taken from is the one that the old bank records."""
        base, old = self.base, self.draft.old
        if old is None or not isinstance(base, BankBase):
            return
        for (owner, name), found in self.tally.digests.items():
            if owner != "base" or all(base.digest(name, n) == v for n, v in found.items()):
                continue
            if base.outside is not None:
                raise MismatchError(
                    f"{base.source}: tensor {name!a} has other values than the base"
                )
            raise old.damaged(base_key(name))

    def settle(self) -> None:
        """Coarsen new superpositions until they fit; refuse an overflow of an old one."""
        steps = self.steps
        while peaks := self.tally.take_peaks():
            full = steps.overflowing(peaks)
            if full is not None:
                bits = steps.width(full)
                raise MismatchError(
                    f"{self.path}: tensor {full.names[0]!a} would overflow its {bits}-bit "
                    f"superposition ({peaks[full]} steps, {LIMIT[bits]} fit); pack the bank anew "
                    "with --bits 16 or a larger --capacity"
                )
            narrow = steps.narrow(peaks)
            if narrow:
                raise TooNarrow(narrow)
            try:
                steps.coarsen(peaks)
            except BeyondGrid as found:
                raise self._beyond_grid(found.unit.names[0]) from None
            self.run(list(peaks), [], "coarser steps")

    def _beyond_grid(self, name: str) -> CheckpointError | MismatchError:
        far = f"tensor {name!a}: a task differs by more than 2^115, beyond every grid; "
        if self.draft.old is not None:
            return MismatchError(f"{self.path}: {far}it cannot be superposed")
        source = self.draft.base.source
        return CheckpointError(f"{source}: {far}keep it exactly (--targets, --rest own)")


#: The superposition of a share: key, shape as stored, bits, whether it goes on from the old one.
_Shared: TypeAlias = tuple[str, tuple[int, int], int, bool]


def _shared(work: Iterable[tuple[Unit, Sequence[Part]]]) -> Iterator[_Shared]:
    """The superpositions of shares that these jobs make."""
    for unit, parts in work:
        for part in parts:
            if part.share.every > 1 and part.step is not None:
                for name in unit.names:
                    key = sum_key(part.group, name)
                    yield key, part.share.shape, part.step.bits, part.kept


def mixed(jobs: Sequence[AnyJob], copies: Sequence[AnyJob]) -> list[AnyJob]:
    """Both in their order, evenly among each other.

    Copies wait for the one file that all threads write to, jobs wait for the processor: among
    each other they use both at once.
    """
    places: list[tuple[float, AnyJob]] = []
    for kind in (jobs, copies):
        places += [((at + 0.5) / len(kind), one) for at, one in enumerate(kind)]
    return [one for _, one in sorted(places, key=lambda place: place[0])]
