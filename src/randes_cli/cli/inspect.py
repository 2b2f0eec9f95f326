"""randes inspect"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import plain, print_json, print_lines, progress_bar

if TYPE_CHECKING:
    from randes_cli.files.bank import BankFile
    from randes_cli.ops.spectra import TaskInterference


class By(str, Enum):
    """How tensors are grouped."""

    type = "type"
    layer = "layer"


class Sort(str, Enum):
    """In which order tasks and groups of tensors come."""

    INDEX = "index"
    QUALITY = "quality"
    ENERGY = "energy"
    SIZE = "size"
    NAME = "name"


def inspect(
    bank: o.BankName,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Show this task alone.", show_default=False),
    ] = None,
    by: Annotated[By, typer.Option(help="Group tensors by type or by layer.")] = By.type,
    sort: Annotated[
        Sort | None,
        typer.Option(
            help="Order of tasks and groups; by themselves tasks come by index, groups with the "
            "most interference first.",
            show_default=False,
        ),
    ] = None,
    against: o.Against = None,
    base: o.BaseOption = None,
    threads: o.Threads = 0,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the JSON manifest.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show every row and column.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Show what a bank holds, and how well each task will come back."""

    from randes_cli.files.sources import open_bank
    from randes_cli.ops.describe import describe, describe_task

    with open_bank(bank) as file:
        if manifest:
            print_json(file.manifest.to_json())
            return
        rows = () if task is None else describe_task(file, task, by=by.value)
        report = describe(file, by=by.value)
        measured = () if not against else _measure(file, against, by, base, threads, quiet)
    if json:
        print_json(
            report,
            ratio_to_base=report.ratio_to_base,
            ratio_to_separate=report.ratio_to_separate,
            **({} if task is None else {"task": task, "task_rows": plain(rows)}),
            **({"measured": plain(measured)} if against else {}),
        )
        return
    from randes_cli.cli.render import bank_view, interference_table, task_view

    order = None if sort is None else sort.value
    if task is None:
        print_lines(lambda width: bank_view(report, width=width, full=full, sort=order))
    else:
        print_lines(lambda w: task_view(report, task, rows, width=w, full=full, sort=order))
    for found in measured:
        print()
        print_lines(partial(interference_table, found))


def _measure(
    file: BankFile, against: list[str], by: By, base: str | None, threads: int, quiet: bool
) -> tuple[TaskInterference, ...]:
    from randes_cli.ops.spectra import interference

    run = o.run_options(threads, None)
    with progress_bar(quiet=quiet) as progress:
        pairs = o.originals(against)
        return interference(file, pairs, run, by=by.value, base=base, progress=progress)
