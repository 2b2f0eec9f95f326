"""Passes over the units of a bank under way: strips, kernels and threads for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from randes_cli.build.copies import Run
from randes_cli.build.exact import Copy, run_copy
from randes_cli.build.strips import Job, Superposer, unit_jobs
from randes_cli.core.kernel import Kernel
from randes_cli.ops.kernels import make_kernel
from randes_cli.plan import Unit, strip_elements, strip_memory
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, run_parallel

AnyJob: TypeAlias = Job | Copy | Run

#: A tensor whose sample shows no change gets its step from its largest change, as if that
#: were so many times the root mean square.
PEAK_TO_RMS = 8


class TooNarrow(Exception):
    """These units passed the range of 8 bits."""

    def __init__(self, units: set[Unit]) -> None:
        super().__init__(units)
        self.units = units


def mixed(jobs: Sequence[AnyJob], copies: Sequence[AnyJob]) -> list[AnyJob]:
    """Both in their order, evenly among each other.

    Copying waits for the file that all threads write to, computing does not: at best one thread
    does the one while another does the other.
    """
    places: list[tuple[float, AnyJob]] = []
    for kind in (jobs, copies):
        places += [((at + 0.5) / len(kind), one) for at, one in enumerate(kind)]
    return [one for _, one in sorted(places, key=lambda place: place[0])]


@dataclass(frozen=True)
class Passes:
    """How passes run; `units` are all that any of them may meet."""

    units: Sequence[Unit]
    run: RunOptions
    threads: int
    progress: Progress

    def strip(self, unit: Unit) -> int:
        """Elements of a unit that are computed at once."""
        return strip_elements(
            unit.layers,
            max_memory=self.run.max_memory,
            threads=self.threads,
            chosen=self.run.strip_elements,
        )

    def widest(self) -> tuple[int, int]:
        """(elements of the widest strip, layers of the deepest unit)."""
        layers = max((unit.layers for unit in self.units), default=1)
        return max((self.strip(unit) for unit in self.units), default=1), layers

    def kernel(self) -> Kernel:
        """A kernel with room for every unit."""
        elements, layers = self.widest()
        return make_kernel(self.run.device, elements=elements, layers=layers)

    def buffer_bytes(self) -> int:
        """Bytes of all threads' kernels."""
        elements, layers = self.widest()
        return self.threads * strip_memory(layers, elements)

    def superpose(
        self, engine: Superposer, units: Sequence[Unit], copies: Sequence[Copy | Run], phase: str
    ) -> None:
        """Run every job of these units, and the copies."""
        sums = [job for unit in units for job in unit_jobs(unit, engine.participants)]
        total = sum(map(engine.job_bytes, sums)) + sum(copy.nbytes for copy in copies)
        jobs = mixed(sums, copies)

        def work(kernel: Kernel, job: AnyJob) -> int:
            if isinstance(job, Job):
                return engine.run(kernel, job)
            if isinstance(job, Copy):
                return run_copy(job, engine.writer, engine.tally)
            job.copy(engine.writer.out)
            return job.nbytes

        run_parallel(
            jobs,
            self.kernel,
            work,
            threads=self.threads,
            phase=phase,
            total=total,
            progress=self.progress,
        )
