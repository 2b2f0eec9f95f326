"""randes inspect"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import console, print_json


class By(str, Enum):
    """How tensors are grouped."""

    type = "type"
    layer = "layer"


def inspect(
    bank: o.BankPath,
    by: Annotated[By, typer.Option(help="Group tensors by type or by layer.")] = By.type,
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the JSON manifest.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show every row and column.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Show what a bank holds, and how well each task will come back."""
    from randes_cli.files.bank import BankFile
    from randes_cli.files.manifest import to_json
    from randes_cli.ops.describe import describe

    with BankFile(bank) as file:
        if manifest:
            print_json(to_json(file.manifest))
            return
        report = describe(file, by=by.value)
    if json:
        print_json(
            report,
            ratio_to_base=report.ratio_to_base,
            ratio_to_separate=report.ratio_to_separate,
        )
        return
    from randes_cli.cli.render import bank_view

    for part in bank_view(report, full=full):
        console().print(part)
