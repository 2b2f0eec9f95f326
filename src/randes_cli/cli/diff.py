"""randes diff"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from randes_cli.cli import options as o
from randes_cli.cli.output import print_json, print_lines, progress_bar
from randes_cli.cli.panels import argument, option
from randes_cli.cli.words import by_task, run_options
from randes_cli.errors import CheckFailed, UsageError


def diff(
    a: Annotated[str, argument("A", "A bank or a checkpoint.")],
    b: Annotated[
        list[str],
        argument(
            "B...", "Another bank; a checkpoint; or [NAME=]CHECKPOINT, as packed, of tasks of A."
        ),
    ],
    base: Annotated[
        o.Word, option(None, "PATH", "Compare two checkpoints' deltas from this base.")
    ] = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare two banks, a bank and checkpoints, or two checkpoints; exit 1 when they differ."""
    from randes_cli import BankDiff
    from randes_cli import diff as run
    from randes_cli.cli.render.tables import bank_diff_view, checkpoint_diff_view

    with progress_bar(quiet=quiet) as progress:
        how = run_options(threads, None, allow_pickle=allow_pickle)
        found = run(a, _other(a, b), base=base, run=how, progress=progress)
    if json:
        print_json(found, same=found.same)
    elif not found.same:
        if isinstance(found, BankDiff):
            print_lines(partial(bank_diff_view, found))
        else:
            print_lines(partial(checkpoint_diff_view, found))
    if not found.same:
        raise CheckFailed(f"{a} and {', '.join(b)} differ")


def _other(a: str, b: list[str]) -> str | dict[str, str]:
    """What a bank or a checkpoint is compared with: one other, or originals by task."""
    from randes_cli.files.recipe.words import task_input
    from randes_cli.files.sources import names_bank

    if len(b) == 1 and (names_bank(b[0]) or not names_bank(a)):
        return b[0]
    if not names_bank(a):
        raise UsageError("diff: put the bank first; a checkpoint is compared with one other")
    return by_task([(task.name, task.source) for task in map(task_input, b)], "diff")
