"""`verify`: is every byte of a bank what was written, and how near do tasks come back?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from randes_cli.cluster import Cluster
from randes_cli.core.columns import bytes_of
from randes_cli.core.prediction.verdict import approximate
from randes_cli.errors import BankDamaged, MismatchError, counted
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import (
    CHECKS,
    NORMS,
    ROUNDED,
    base_key,
    file_key,
    own_key,
    parse_key,
    scale_key,
    sum_key,
)
from randes_cli.files.bank.shards import Contents, shard_file
from randes_cli.files.location import Place, absolute
from randes_cli.files.sources import open_bank
from randes_cli.limits import StrPath
from randes_cli.ops.checking import UNREADABLE, check_keys
from randes_cli.ops.prune import unnamed_files
from randes_cli.specs import RunOptions
from randes_cli.stats.plausible import impossible
from randes_cli.stats.stored import open_statistics
from randes_cli.stats.summaries import bank_summaries
from randes_cli.workers import Progress, no_progress

if TYPE_CHECKING:  # loaded where something is measured
    from randes_cli.ops.measure import TaskCheck

#: Bytes, about, that a worker of a cluster checks at a time, at the most.
_PART = 2**30


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        damaged: tensors of the bank whose bytes are not those written.
        shards: files of a bank in shards that are missing, cut short or damaged, each with what is
            the matter.
        unnamed: files beside the index that it does not name: what an edit that was killed left.
        pruned: bytes of such files that were removed.
        hurt: tasks that cannot be retrieved whole, each with the damaged tensors it needs.
        whole: tasks that can.
        lost: tasks whose deltas do not come back, each with why and what to do.
        approximate: lines that say which predictions are approximate, and why.
        against: measurements, where originals were given.
    """

    bank: str
    quick: bool
    bytes_checked: int
    damaged: tuple[str, ...]
    hurt: dict[str, tuple[str, ...]]
    whole: tuple[str, ...]
    lost: dict[str, str]
    against: tuple[TaskCheck, ...] = ()
    shards: dict[str, str] = field(default_factory=dict)
    unnamed: tuple[str, ...] = ()
    pruned: int = 0
    approximate: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged and not self.shards

    @property
    def strange(self) -> tuple[str, ...]:
        """Tasks measured against another checkpoint than the one that was packed."""
        return tuple(check.task for check in self.against if not check.original)


def damaged_bank(bank: StrPath, report: VerifyReport) -> BankDamaged:
    """The error for a bank that was found damaged."""
    where = f" in {counted(len(report.shards), 'shard')}" if report.shards else ""
    damaged = counted(len(report.damaged), "damaged tensor")
    return BankDamaged(f"{bank}: {damaged}{where}; restore a copy")


def needed_keys(bank: BankFile, name: str) -> set[str]:
    """The tensors of a bank that retrieving a task reads."""
    from randes_cli.read.retrieve import Retrieval

    retrieval = Retrieval(bank, None, bank.task(name))
    task = retrieval.task
    keys = {own_key(name, n) for n in [*task.own, *task.shapes]}
    keys |= {file_key(content) for content in task.files.values()}
    for tensor in retrieval.tensors:
        if retrieval.kept_name(tensor) not in task.own:
            keys.add(base_key(retrieval.kept_name(tensor)))
            if retrieval.superposed(tensor):
                held = retrieval.held(tensor).name
                keys |= {sum_key(task.group, held), scale_key(task.group, held)}
    if retrieval.untuned:
        keys |= {NORMS, ROUNDED}
    return keys & set(bank.header.tensors)


def verify(
    bank: BankFile,
    run: RunOptions,
    *,
    quick: bool = False,
    progress: Progress = no_progress,
) -> VerifyReport:
    """Compare every byte of an open bank with its digests.

    Opening has already checked header, digests and manifest; `quick` adds the statistics only.
    """
    keys = [key for key in bank.header.tensors if key != CHECKS]
    if quick:
        keys = [key for key in keys if parse_key(key).kind in ("stats", "manifest")]
    problems = bank.store.problems
    lost = {key for key in keys if bank.store.shard_of(key) in problems} if problems else set()
    left = [key for key in keys if key not in lost]
    total = bytes_of(bank.header.tensors, left)
    check = _check_elsewhere if run.engine == "ray" else check_keys
    damaged = lost | check(bank, left, run, total, progress)
    if not (damaged or problems):
        damaged |= set(impossible(bank.manifest, open_statistics(bank)))
    hurt = {}
    for task in bank.manifest.tasks if damaged else ():
        found = needed_keys(bank, task.name) & damaged
        if found:
            hurt[task.name] = tuple(sorted(found))
    intact = not (damaged or problems)
    tasks = bank_summaries(bank, open_statistics(bank)) if intact else ()
    return VerifyReport(
        bank=str(bank.path),
        quick=quick,
        bytes_checked=bank.size if intact and not quick else total + bank.store.overhead,
        shards=_shards(bank, damaged, quick=quick),
        unnamed=tuple(path.name for path in unnamed_files(bank)),
        damaged=tuple(sorted(damaged)),
        hurt=hurt,
        whole=tuple(task.name for task in bank.manifest.tasks if task.name not in hurt),
        lost={task.name: task.lost for task in tasks if task.lost},
        approximate=tuple(approximate(tasks)),
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a worker of a cluster opens a bank: a place, or the name of one on the Hub."""

    bank: Place | str
    digest: bytes

    @classmethod
    def of(cls, bank: BankFile) -> Recipe:
        on_hub = bank.far and isinstance(bank.path, Path)
        return cls(str(bank.path) if on_hub else absolute(bank.path), bank.store.fingerprint)

    @contextmanager
    def opened(self) -> Iterator[BankFile]:
        """Open it. Raises MismatchError where the bank is another here."""
        if isinstance(self.bank, str):
            opened = open_bank(self.bank, lenient=True)
        else:
            opened = BankFile(self.bank, lenient=True)
        with opened as bank:
            if bank.store.fingerprint != self.digest:
                raise MismatchError(f"{self.bank}: another bank on a worker than on this machine")
            yield bank


def _check_part(
    bank: BankFile, task: tuple[Sequence[str], RunOptions], progress: Progress
) -> set[str]:
    keys, run = task
    total = bytes_of(bank.header.tensors, keys)
    return check_keys(bank, keys, replace(run, threads=max(1, run.threads)), total, progress)


def _check_elsewhere(
    bank: BankFile, keys: Sequence[str], run: RunOptions, total: int, progress: Progress
) -> set[str]:
    """The same by the workers of a cluster, a part of a file each."""
    parts: list[list[str]] = []
    place, room = -1, 0
    with Cluster(run) as cluster:
        most = min(_PART, cluster.share(total))
        for key in keys:
            if bank.store.address(key)[0] != place or room <= 0:
                parts.append([])
                place, room = bank.store.address(key)[0], most
            parts[-1].append(key)
            room -= bank.info(key).nbytes
        tasks = [(part, run) for part in parts]
        held = cluster.hold(Recipe.of(bank))
        found = cluster.map(
            _check_part, held, tasks, phase="verifying", total=total, progress=progress
        )
        return {key for _, damaged in found for key in damaged}


def _shards(bank: BankFile, damaged: set[str], *, quick: bool) -> dict[str, str]:
    """What is the matter with which shard: its file, what is about its tensors, or those."""
    found = {file: str(problem) for file, problem in bank.store.problems.items()}
    for number, (name, contents) in enumerate(bank.store.shards.items()):
        file, hurt = shard_file(name), damaged.intersection(contents.names)
        if file not in found and hurt:
            found[file] = counted(len(hurt), "damaged tensor")
        if file not in found and not quick and not _has_frame(bank, number, contents):
            found[file] = "what is about its tensors is damaged: the header, the digests or fillers"
    return found


def _has_frame(bank: BankFile, number: int, contents: Contents) -> bool:
    """Whether a shard has the header, the fillers and the digests that its index says."""
    header, tensors = contents.header, contents.header.tensors
    wanted = {0: contents.head, header.start(CHECKS): contents.checks}
    fillers = [tensors[name] for name in tensors if parse_key(name).kind == "align"]
    wanted |= {header.start(filler.name): bytes(filler.nbytes) for filler in fillers}
    for place, data in wanted.items():
        raw = np.empty(len(data), np.uint8)
        try:
            bank.store.read_shard(number, place, raw)
        except UNREADABLE:
            return False
        if raw.tobytes() != data:
            return False
    return True
