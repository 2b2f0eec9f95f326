"""randes inspect"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import note, plain, print_json, print_lines, progress_bar


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
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the JSON manifest.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show every row and column.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Show what a bank holds, and how well each task will come back."""

    from randes_cli import inspect as run

    if manifest:
        from randes_cli.files.sources import open_bank

        with open_bank(bank) as file:
            print_json(file.manifest.to_json())
        return
    with progress_bar(quiet=quiet) as progress:
        found = run(
            bank,
            task,
            by=by.value,
            against=o.originals(against),
            base=base,
            run=o.run_options(threads, None, allow_pickle=allow_pickle),
            progress=progress,
        )
    from randes_cli.core.verdict import sentences

    report = found.report
    if json:
        print_json(
            report,
            ratio_to_base=report.ratio_to_base,
            ratio_to_separate=report.ratio_to_separate,
            expect=sentences(report.tasks),
            **({} if task is None else {"task": task, "task_rows": plain(found.rows)}),
            **({"measured": plain(found.measured)} if against else {}),
        )
        return
    from randes_cli.cli.render.bank import bank_view
    from randes_cli.cli.render.task import task_view

    order = None if sort is None else sort.value
    if task is None:
        print_lines(lambda width: bank_view(report, width=width, full=full, sort=order))
        if report.saving:
            note(report.saving, quiet=quiet)
    else:
        print_lines(lambda w: task_view(report, task, found.rows, width=w, full=full, sort=order))
    if found.measured:
        from randes_cli.cli.render.tables import interference_table

        for one in found.measured:
            print()
            print_lines(partial(interference_table, one))
