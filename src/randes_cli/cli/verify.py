"""randes verify"""

from __future__ import annotations

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
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Check every byte of a bank; name what is damaged and which tasks it hurts."""
    from randes_cli import verify as run
    from randes_cli.cli.render.tables import check_table

    clock = Clock(json=json)
    with progress_bar(quiet=quiet) as progress:
        report = run(
            bank,
            quick=quick,
            against=o.originals(against),
            base=base,
            run=o.run_options(threads, None, allow_pickle=allow_pickle),
            progress=progress,
        )
    measured = report.sound and bool(against)
    if json:
        print_json(
            report, sound=report.sound, measured=measured, **clock.facts(report.bytes_checked, 0)
        )
    else:
        for check in report.against:
            print_lines(partial(check_table, check), quiet=quiet)
        if report.sound:
            say(f"{bank}: sound, {human(report.bytes_checked)} checked", quiet=quiet)
        for name, words in report.lost.items():
            say(f"{name}: {words}", quiet=quiet)
        for key in report.damaged:
            say(f"damaged: {key!a}", quiet=quiet)
        for name, keys in report.hurt.items():
            say(f"task {name}: hurt by {len(keys)} of them", quiet=quiet)
        if report.damaged:
            say(f"whole: {', '.join(report.whole) or 'none'}", quiet=quiet)
        if against and not measured:
            say("not measured against the originals: the bank is damaged", quiet=quiet)
    note(clock.sentence(report.bytes_checked, 0), quiet=quiet)
    if not report.sound:
        raise BankDamaged(f"{bank}: {len(report.damaged)} damaged tensors; restore a copy")
