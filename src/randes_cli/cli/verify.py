"""randes verify"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, human, note, print_json, print_lines, progress_bar, say
from randes_cli.errors import BankDamaged


def verify(
    bank: o.BankName,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check header, manifest and statistics only.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CHECKPOINT",
            help="Also measure how near a task comes back to its original.",
            show_default=False,
        ),
    ] = None,
    base: o.BaseOption = None,
    threads: o.Threads = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Check every byte of a bank; name what is damaged and which tasks it hurts."""
    from randes_cli.cli.render import check_table
    from randes_cli.files.bank import BankFile
    from randes_cli.files.sources import local_bank
    from randes_cli.ops.verify import measure
    from randes_cli.ops.verify import verify as run

    clock, run_options = Clock(), o.run_options(threads, None)
    with BankFile(local_bank(bank)) as file, progress_bar(quiet=quiet) as progress:
        report = run(file, run_options, quick=quick, progress=progress)
        if report.sound and against:
            found = measure(file, o.originals(against), run_options, base=base, progress=progress)
            report = replace(report, against=found)
    if json:
        print_json(report, sound=report.sound, **clock.facts(report.bytes_checked, 0))
    else:
        for check in report.against:
            print_lines(partial(check_table, check))
        if report.sound:
            say(f"{bank}: sound, {human(report.bytes_checked)} checked")
        for key in report.damaged:
            say(f"damaged: {key!a}")
        for name, keys in report.hurt.items():
            say(f"task {name}: hurt by {len(keys)} of them")
        if report.damaged:
            say(f"whole: {', '.join(report.whole) or 'none'}")
    note(clock.sentence(report.bytes_checked, 0), quiet=quiet)
    if not report.sound:
        raise BankDamaged(f"{bank}: {len(report.damaged)} damaged tensors; restore a copy")
