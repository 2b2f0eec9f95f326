"""`add` and `remove`: a new bank from the old one and the checkpoints that come or go.

Superpositions change by exact integers, everything else is copied as it is. The old bank stays
until the new one takes its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from randes_cli.build.editing import Change, Edit
from randes_cli.build.inputs.tasks import check_names
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.local.guard import one_command
from randes_cli.files.local.lock import bank_lock, edited_bank
from randes_cli.files.location import as_place
from randes_cli.files.nearest import alike, meant
from randes_cli.files.recipe.words import TaskInputs, task_inputs
from randes_cli.limits import StrPath, as_source
from randes_cli.reports import EditReport
from randes_cli.specs import EditOptions, RunOptions, TaskInput
from randes_cli.workers import Progress, no_progress


@one_command()
def add(
    bank: StrPath,
    tasks: TaskInputs,
    options: EditOptions | None = None,
    run: RunOptions | None = None,
    *,
    replace: bool = False,
    checkpoints: Mapping[str, StrPath] | None = None,
    forget: bool = False,
    progress: Progress = no_progress,
) -> EditReport:
    """Add tasks to a bank; each gets the next unused index.

    With `replace` a task takes the place of one of its name, whose delta is subtracted in the
    same pass: `checkpoints` and `forget` are about those that go, as in `remove`. Tasks that are
    new may come with them.
    Raises MismatchError (another base, or a superposition that would overflow), UsageError (a
    name that is taken), MissingError (`replace` where none of the tasks is there), BankLocked,
    BankDamaged, CheckpointError, NoSpace, and with `replace` what `remove` raises.
    """
    tasks = task_inputs(tasks)
    if not tasks:
        raise UsageError("no task to add: name at least one fine-tuned checkpoint")
    if (checkpoints or forget) and not replace:
        raise UsageError("--checkpoint and --forget are about tasks that --replace takes out")
    names = {task.name for task in tasks}
    with _edit(bank, options, run, progress) as edit:
        gone = [task for task in edit.old.manifest.tasks if task.name in names]
        if gone and not replace:
            name = gone[0].name
            raise UsageError(
                f"{bank}: {name} is already in the bank; --replace puts the new one in its place, "
                "NAME=PATH adds it beside"
            )
        if replace and not gone:
            name, near = tasks[0].name, _nearest(edit.old, tasks[0].name)
            raise MissingError(
                f"{edit.old.path}: no task {name!r} to replace{near}; add it without --replace"
            )
        left = [t for t in edit.old.manifest.tasks if t.name not in names]
        check_names([*(TaskInput(task.name, task.source) for task in left), *tasks])
        names_gone = tuple(task.name for task in gone)
        edit.apply(Change(names_gone, checkpoints or {}, forget, tuple(tasks)))
        if replace:
            edit.notes = [
                f"{one.name}: no task of this name to replace{_nearest(edit.old, one.name)}, so it "
                "is added beside the others"
                for one in tasks
                if one.name not in names_gone
            ]
        return edit.report("adding")


@one_command()
def remove(
    bank: StrPath,
    names: str | Sequence[str],
    options: EditOptions | None = None,
    run: RunOptions | None = None,
    *,
    checkpoints: Mapping[str, StrPath] | None = None,
    forget: bool = False,
    progress: Progress = no_progress,
) -> EditReport:
    """Take tasks out of a bank by subtracting what was added, which needs their checkpoints.

    `checkpoints` names them by task; otherwise the recorded sources are looked for. With
    `forget` nothing is subtracted: only the record goes, the delta stays for good as interference,
    and whoever has the bank can still retrieve it.
    Raises MissingError (no such task, no checkpoint), MismatchError (a checkpoint with another
    fingerprint), BankLocked, BankDamaged, NoSpace.
    """
    names = [names] if isinstance(names, str) else names
    if len(set(names)) != len(names) or not names:
        raise UsageError("name each task to remove once")
    with _edit(bank, options, run, progress) as edit:
        edit.apply(Change(tuple(names), checkpoints or {}, forget))
        return edit.report("removing")


def _nearest(bank: BankFile, name: str) -> str:
    return meant(alike(name, [task.name for task in bank.manifest.tasks], 1))


@contextmanager
def _edit(
    bank: StrPath, options: EditOptions | None, run: RunOptions | None, progress: Progress
) -> Iterator[Edit]:
    """An edit of a bank, opened under its write lock; a dry run only reads and needs none."""
    options, bank = options or EditOptions(), edited_bank(as_place(as_source(bank)))
    with ExitStack() as stack:
        if not options.dry_run:
            stack.enter_context(bank_lock(bank, wait=options.wait))
        old = stack.enter_context(BankFile(bank))
        yield Edit(old, stack, options, run or RunOptions(), progress)
