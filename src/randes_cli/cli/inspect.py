"""randes inspect"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated

from randes_cli.cli import complete
from randes_cli.cli import options as o
from randes_cli.cli.output import note, plain, print_json, print_lines, progress_bar
from randes_cli.cli.panels import SPEAKS, argument, option, switch
from randes_cli.cli.words import check_originals, originals, run_options
from randes_cli.errors import UsageError

if TYPE_CHECKING:
    from randes_cli.verbs.banks import Inspection


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


Name = Annotated[o.Word, argument("[TASK]", "A task to show alone.", complete.tasks)]
Grouping = Annotated[By, option(None, "HOW", "Group tensors by type or by layer.")]
Order = Annotated[
    Sort | None,
    option(
        None,
        "HOW",
        "Order of tasks and groups: index, quality, energy, size or name; by themselves tasks "
        "come by index, groups with the most interference first.",
    ),
]
AsManifest = Annotated[bool, switch(SPEAKS, "Print the JSON manifest.", "--manifest")]
AsRecipe = Annotated[
    bool,
    switch(
        SPEAKS,
        "Print the recipe that the bank was made from, to be saved in this folder, for pack "
        "--from; with --full its steps, too.",
        "--recipe",
    ),
]


def inspect(
    bank: o.BankName,
    name: Name = None,
    task: o.OneTask = None,
    by: Grouping = By.type,
    sort: Order = None,
    against: o.Against = None,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    manifest: AsManifest = False,
    recipe: AsRecipe = False,
    full: o.Full = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Show what a bank holds, and how well each task will come back."""
    from randes_cli import inspect as run

    if name is not None and task is not None:
        raise UsageError(f"--task {task}: {name} is named already; inspect shows one task")
    task = name if task is None else task
    if manifest or recipe:
        _print_manifest(bank, recipe=recipe, full=full)
        return
    with progress_bar(quiet=quiet) as progress:
        found = run(
            bank,
            task,
            by=by.value,
            against=originals(against),
            base=base,
            run=run_options(threads, None, allow_pickle=allow_pickle),
            progress=progress,
        )
    if json:
        _print_report(found, task, measured=bool(against))
    else:
        _show(found, task, None if sort is None else sort.value, full=full, quiet=quiet)
    strange = [one.task for one in found.measured if not one.original]
    check_originals(f"{bank}: measured, but", strange)


def _print_manifest(bank: str, *, recipe: bool, full: bool) -> None:
    from randes_cli.files.sources import open_bank

    with open_bank(bank) as file:
        found, place, most = file.manifest, file.path, file.most
    if not recipe:
        print_json(found.to_json())
        return
    from randes_cli.files.recipe.of import recipe_text

    print(recipe_text(found, place, full=full, most=most), end="")


def _print_report(found: Inspection, task: str | None, *, measured: bool) -> None:
    from randes_cli.core.prediction.verdict import sentences

    report = found.report
    print_json(
        report,
        ratio_to_base=report.ratio_to_base,
        ratio_to_separate=report.ratio_to_separate,
        expect=sentences(report.tasks),
        **({} if task is None else {"task": task, "task_rows": plain(found.rows)}),
        **({"measured": plain(found.measured)} if measured else {}),
    )


def _show(
    found: Inspection, task: str | None, sort: str | None, *, full: bool, quiet: bool
) -> None:
    from randes_cli.cli.render.bank import bank_view, task_view

    report = found.report
    if task is None:
        print_lines(lambda width: bank_view(report, width=width, full=full, sort=sort))
        for text in (*report.unsuited, report.unsure, report.saving):
            if text:
                note(text, quiet=quiet)
    else:
        print_lines(lambda w: task_view(report, task, found.rows, width=w, full=full, sort=sort))
    if found.measured:
        from randes_cli.cli.render.tables import interference_table

        for one in found.measured:
            print()
            print_lines(partial(interference_table, one))
