"""Verbs that say what banks hold: inspect, verify, diff."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from randes_cli.errors import UsageError
from randes_cli.files.sources import names_bank, open_bank, own_bank
from randes_cli.limits import StrPath, as_source
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress

if TYPE_CHECKING:
    from randes_cli.ops.describe import BankReport
    from randes_cli.ops.diff import BankDiff, CheckpointDiff
    from randes_cli.ops.originals import Originals
    from randes_cli.ops.spectra import TaskInterference
    from randes_cli.ops.verify import VerifyReport
    from randes_cli.stats.breakdown import GroupRow

# What only one verb needs is imported by that verb: commands start sooner.


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        report: the bank.
        rows: of the task that was asked for, by type or layer of its tensors.
        measured: interference of the tasks whose originals were given.
    """

    report: BankReport
    rows: tuple[GroupRow, ...] = ()
    measured: tuple[TaskInterference, ...] = ()


def inspect(
    bank: StrPath,
    task: str | None = None,
    *,
    by: str = "type",
    against: Originals | None = None,
    base: StrPath | None = None,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> Inspection:
    """What a bank holds, and how well each task will come back, from its header and statistics.

    Tensors are grouped `by` "type" or "layer". With `against`, the originals of tasks, their
    interference is measured beside the prediction, which reads them and the bank once.
    Raises MissingError, BankDamaged, and what reading a checkpoint raises.
    """
    from randes_cli.ops.describe import describe, describe_task

    if by not in ("type", "layer"):
        raise UsageError(f"--by {by!r}: say type or layer")
    with open_bank(as_source(bank)) as file:
        rows = () if task is None else describe_task(file, task, by=by)
        found = Inspection(describe(file, by=by), rows)
        if not against:
            return found
        from randes_cli.ops.spectra import interference

        how = run or RunOptions()
        measured = interference(file, against, how, by=by, base=base, progress=progress)
        return replace(found, measured=measured)


def verify(
    bank: StrPath,
    *,
    quick: bool = False,
    prune: bool = False,
    older_than: int | None = None,
    against: Originals | None = None,
    base: StrPath | None = None,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> VerifyReport:
    """Compare every byte of a bank with its digests; `quick` looks at header and statistics only.

    A damaged bank is no error here: the report names the damage and the tasks that it hurts.
    With `against` (and a sound bank) tasks are retrieved and compared with their originals;
    `strange` of the report names those whose checkpoint is not the one that was packed.
    With `prune` the files among its shards that its index does not name are removed (an edit that
    was killed leaves some); in a store, where another may be writing, only those that are
    `older_than` so many hours (24 unless said).
    Raises MissingError; BankDamaged where not even the header, the manifest and the digests can
    be read; with `prune` BankLocked.
    """
    from randes_cli.ops import verify as module

    run = run or RunOptions()
    freed = 0
    if prune or older_than is not None:
        from randes_cli.ops.prune import check_age, prune_files

        own = own_bank(as_source(bank))
        check_age(older_than, own, prune=prune)
        freed = prune_files(own, older_than)
    with open_bank(as_source(bank), lenient=True) as file:
        found = replace(module.verify(file, run, quick=quick, progress=progress), pruned=freed)
        if not (found.sound and against):
            return found
        from randes_cli.ops.measure import measure

        measured = measure(file, against, run, base=base, progress=progress)
        return replace(found, against=measured)


def diff(
    a: StrPath,
    b: StrPath | Originals,
    *,
    base: StrPath | None = None,
    run: RunOptions | None = None,
    progress: Progress = no_progress,
) -> BankDiff | CheckpointDiff:
    """Compare two banks, a bank and originals of its tasks, or two checkpoints.

    Two checkpoints are compared as deltas where their `base` is given.
    Raises UsageError for another pair, MissingError, and what reading either raises.
    """
    from randes_cli.ops import diff as module

    run = run or RunOptions()
    if not names_bank(a):
        if isinstance(b, Mapping) or names_bank(b):
            raise UsageError("diff: put the bank first; a checkpoint is compared with one other")
        return module.diff_checkpoints(a, b, run, base=base, progress=progress)
    if base is not None:
        raise UsageError("--base serves two checkpoints only")
    with open_bank(as_source(a)) as bank:
        if isinstance(b, Mapping):
            return module.diff_bank_checkpoints(bank, b, run, progress=progress)
        if not names_bank(b):
            raise UsageError(f"diff: {b}: no bank; give a checkpoint as {{task: path}}")
        with open_bank(as_source(b)) as other:
            return module.diff_banks(bank, other, run, progress=progress)
