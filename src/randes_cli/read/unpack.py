"""`unpack`: tasks out of a bank as ordinary safetensors checkpoints, written as a stream.

A task that came from a folder comes back as a folder that `from_pretrained` opens: its
weights (of each component) and its side files. A bare file comes back as a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from randes_cli.cluster import Cluster
from randes_cli.files.atomic import remove_stale
from randes_cli.files.bank.file import BankFile
from randes_cli.files.base import BankBase, bank_base, found_base
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.lock import clear_lock
from randes_cli.files.location import absolute_source, as_place
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.read.originals import Originals
from randes_cli.read.places import (
    Destination,
    UnpackOptions,
    check_name,
    destination,
    names_a_file,
    new_folders,
)
from randes_cli.read.unpacking import Unpacking, UnpackReport
from randes_cli.read.way import Way, way_out
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress

__all__ = ["UnpackReport", "unpack"]


@one_command()
def unpack(
    bank: StrPath,
    tasks: str | Sequence[str] | None = None,
    out: StrPath | None = None,
    options: UnpackOptions | None = None,
    run: RunOptions | None = None,
    *,
    base: StrPath | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> list[UnpackReport]:
    """Write tasks (None: all) as ordinary safetensors checkpoints; one report a task.

    `out` is a file ending in ``.safetensors``, or a folder (None: here); an address: one in a
    store, where a task's weights appear after all its other files. Every place is checked before
    any is written.
    Raises MissingError, UsageError (something is there), BankDamaged, MismatchError, NoSpace,
    HubError.
    """
    options, run = options or UnpackOptions(), run or RunOptions()
    place = None if out is None else as_place(as_source(out))
    with ExitStack() as stack:
        if place is not None:
            check_name(place)
        way = stack.enter_context(way_out(place))
        file = stack.enter_context(open_bank(as_source(bank)))
        file.require_tasks()
        names = [tasks] if isinstance(tasks, str) else tasks
        every = [task.name for task in file.manifest.tasks]
        chosen = [file.task(name) for name in dict.fromkeys(every if names is None else names)]
        single = len(chosen) == 1 and (names is not None or names_a_file(way.root))
        places = [destination(task, way.root, options, single=single) for task in chosen]
        opened = stack.enter_context(bank_base(file, base, allow_pickle=run.allow_pickle))
        jobs = [
            Unpacking(file, opened, task, goes, options, run, way)
            for task, goes in zip(chosen, places, strict=True)
        ]
        originals = Originals(file, base)
        for job in jobs:
            job.check(originals)
        if not dry_run:
            way.check_space([job.bytes for job in jobs])
            if run.engine == "ray":
                return _elsewhere(jobs, bank, found_base(file, base), options, run, progress)
            for job in jobs:
                job.write(progress)
        return [job.report(dry_run) for job in jobs]


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a worker of a cluster opens a bank, and its base where that lies outside."""

    bank: str
    base: str | None
    options: UnpackOptions
    run: RunOptions

    @contextmanager
    def opened(self) -> Iterator[tuple[BankFile, BankBase | None, _Recipe]]:
        with ExitStack() as stack:
            file = stack.enter_context(open_bank(self.bank))
            leave = self.run.allow_pickle
            yield file, stack.enter_context(bank_base(file, self.base, allow_pickle=leave)), self


def _unpack_one(
    opened: tuple[BankFile, BankBase | None, _Recipe],
    task: tuple[str, Destination, Way],
    progress: Progress,
) -> UnpackReport:
    """Write a task, in a worker: also over what a lost one may have written."""
    file, base, recipe = opened
    run = replace(recipe.run, threads=max(1, recipe.run.threads))
    name, place, way = task
    with way.anew() as ours:
        goes = place if ours.root == way.root else place.moved(partial(_rooted, way, ours))
        job = Unpacking(file, base, file.task(name), goes, recipe.options, run, ours)
        job.over = True
        job.write(progress)
        return job.report(False)


def _rooted(old: Way, new: Way, path: Path) -> Path:
    """The same path below another root."""
    return path if old.root is None or new.root is None else new.root / path.relative_to(old.root)


def _elsewhere(
    jobs: Sequence[Unpacking],
    bank: StrPath,
    base: str | None,
    options: UnpackOptions,
    run: RunOptions,
    progress: Progress,
) -> list[UnpackReport]:
    """Have the workers of a cluster write tasks, one each at a time; `base` as they find it."""
    recipe = _Recipe(absolute_source(as_source(bank)), base, options, run)
    tasks = [
        (job.retrieval.task.name, job.place.moved(Path.absolute), job.way.absolute())
        for job in jobs
    ]
    total, found = sum(job.bytes for job in jobs), dict[int, UnpackReport]()
    here = [path for job in jobs if job.way.there is None for path in job.files]
    with new_folders({path.parent for path in here}):  # no worker's, who would remove them
        try:
            with Cluster(run) as cluster:
                held = cluster.hold(recipe)
                made = cluster.map(
                    _unpack_one, held, tasks, phase="unpacking", total=total, progress=progress
                )
                found.update(made)
        finally:  # of workers that were lost, or ended since another failed
            for path in (path for job in jobs for path in job.files):
                remove_stale(path)
                clear_lock(path)
    return [replace(found[n], path=job.path, files=job.named()) for n, job in enumerate(jobs)]
