"""randes diff"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import print_json, print_lines, progress_bar
from randes_cli.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from randes_cli.ops.diff import BankDiff, CheckpointDiff
    from randes_cli.workers import Progress


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A bank or a checkpoint.")],
    b: Annotated[
        list[str],
        typer.Argument(
            metavar="B...",
            help="Another bank; a checkpoint; or [NAME=]CHECKPOINT of tasks of bank A.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="Compare two checkpoints' deltas from this base.", show_default=False),
    ] = None,
    threads: o.Threads = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare two banks, a bank and checkpoints, or two checkpoints; exit 1 when they differ."""
    from randes_cli.cli.render import bank_diff_view, checkpoint_diff_view
    from randes_cli.ops.diff import BankDiff

    with progress_bar(quiet=quiet) as progress:
        found = _compare(a, b, base, threads, progress)
    if json:
        print_json(found, same=found.same)
    elif not found.same:
        if isinstance(found, BankDiff):
            bank_diff = found
            print_lines(lambda width: bank_diff_view(bank_diff, width))
        else:
            pair = found
            print_lines(lambda width: checkpoint_diff_view(pair, width))
    if not found.same:
        raise CheckFailed(f"{a} and {', '.join(b)} differ")


def _compare(
    a: str, b: list[str], base: str | None, threads: int, progress: Progress
) -> BankDiff | CheckpointDiff:
    from randes_cli.files.bank import BankFile, is_bank
    from randes_cli.ops import diff as ops

    run = o.run_options(threads, None)
    if not is_bank(Path(a)):
        if len(b) != 1 or is_bank(Path(b[0])):
            raise UsageError("diff: put the bank first; a checkpoint is compared with one other")
        return ops.diff_checkpoints(a, b[0], run, base=base, progress=progress)
    if base is not None:
        raise UsageError("--base serves two checkpoints only")
    with BankFile(Path(a)) as bank:
        if len(b) == 1 and is_bank(Path(b[0])):
            with BankFile(Path(b[0])) as other:
                return ops.diff_banks(bank, other, run, progress=progress)
        tasks = [o.task_input(text) for text in b]
        pairs = [(task.name, task.source) for task in tasks]
        return ops.diff_bank_checkpoints(bank, pairs, run, progress=progress)
