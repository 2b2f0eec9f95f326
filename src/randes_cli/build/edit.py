"""`add` and `remove`: a new bank from the old one and the checkpoints that come or go.

Superpositions change by exact integers, everything else is copied as it is. The old bank stays
until the new one takes its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from randes_cli.build.adding import Adding
from randes_cli.build.inputs import check_names
from randes_cli.build.removing import Removing
from randes_cli.errors import MismatchError, MissingError, UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.lock import bank_lock
from randes_cli.limits import LIMITS, StrPath, as_source
from randes_cli.read.retrieve import find_task
from randes_cli.reports import EditReport
from randes_cli.specs import EditOptions, RunOptions, TaskInput
from randes_cli.workers import Progress, no_progress


def add(
    bank: StrPath,
    tasks: Sequence[TaskInput],
    options: EditOptions | None = None,
    run: RunOptions | None = None,
    *,
    progress: Progress = no_progress,
) -> EditReport:
    """Add tasks to a bank; each gets the next unused index.

    Raises MismatchError (another base, or a superposition that would overflow), UsageError (a
    name that is taken), BankLocked, BankDamaged, CheckpointError, NoSpace.
    """
    options, run = options or EditOptions(), run or RunOptions()
    if not tasks:
        raise UsageError("no task to add: name at least one fine-tuned checkpoint")
    with ExitStack() as stack:
        old = stack.enter_context(_locked(Path(bank), options))
        editing = Adding(old, stack, options, run, progress)
        taken = [TaskInput(task.name, task.source) for task in old.manifest.tasks]
        check_names([*taken, *tasks])
        if old.manifest.next_index + len(tasks) > LIMITS["next_index"].most:
            raise MismatchError(f"{old.path}: no index is left for a new task; pack it anew")
        for number, task in enumerate(tasks):
            editing.coming(task, old.manifest.next_index + number)
        return editing.add()


def remove(
    bank: StrPath,
    names: Sequence[str],
    options: EditOptions | None = None,
    run: RunOptions | None = None,
    *,
    checkpoints: Mapping[str, StrPath] | None = None,
    forget: bool = False,
    progress: Progress = no_progress,
) -> EditReport:
    """Take tasks out of a bank by subtracting what was added, which needs their checkpoints.

    `checkpoints` names them by task; otherwise the recorded sources are looked for. With
    `forget` nothing is subtracted: only the record goes, the delta stays as interference, and
    whoever kept the seed can still retrieve it.
    Raises MissingError (no such task, no checkpoint), MismatchError (a checkpoint with another
    fingerprint), BankLocked, BankDamaged, NoSpace.
    """
    options, run = options or EditOptions(), run or RunOptions()
    if len(set(names)) != len(names) or not names:
        raise UsageError("name each task to remove once")
    with ExitStack() as stack:
        old = stack.enter_context(_locked(Path(bank), options))
        records = [find_task(old, name) for name in names]
        editing = Removing(old, stack, options, run, progress)
        if not forget:
            for record in editing.subtractable(records):
                given = (checkpoints or {}).get(record.name)
                path = None if given is None else as_source(given)
                editing.participants.append(editing.leaving(record, path))
        return editing.remove(records, forget=forget)


@contextmanager
def _locked(bank: Path, options: EditOptions) -> Iterator[BankFile]:
    """The bank, opened under its write lock; a dry run only reads and needs none."""
    if options.dry_run:
        with BankFile(bank) as old:
            yield old
        return
    if not bank.exists():
        raise MissingError(f"{bank}: not found")
    with bank_lock(bank, wait=options.wait), BankFile(bank) as old:
        yield old
