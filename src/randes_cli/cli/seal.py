"""randes seal"""

from __future__ import annotations

from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, human, note, print_json, print_lines, progress_bar
from randes_cli.errors import UsageError


def seal(
    bank: o.BankName,
    bits: Annotated[
        int | None,
        typer.Option(help="Bits of a superposed element: 8, 4, 3, 2 or 1.", show_default=False),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|RATIO",
            help="The most bits for a bank within 500MB, or 1.1 times the base.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--output", "-o", help="The bank to write.", show_default=False),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace the bank itself; this cannot be undone.")
    ] = False,
    max_shard_size: o.MaxShardSize = None,
    wait: o.Wait = 0.0,
    threads: o.Threads = 0,
    dry_run: o.DryRun = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Cut superpositions to few bits: a much smaller bank whose present tasks cannot change."""
    from randes_cli import seal as run
    from randes_cli.build.seal import fit_bits
    from randes_cli.cli.render.tables import edit_table
    from randes_cli.files.sources import own_bank

    if (out is None) != in_place:
        raise UsageError("say -o BANK for a new bank, or --in-place")
    if (bits is None) == (fit is None):
        raise UsageError("say --bits 8, 4, 3, 2 or 1, or --fit SIZE|RATIO")
    clock = Clock(json=json)
    source = own_bank(bank) if in_place else bank
    with progress_bar(quiet=quiet) as progress:
        report = run(
            source,
            out,
            fit_bits(source, fit) if bits is None else bits,
            o.run_options(threads, None),
            force=force,
            wait=wait,
            dry_run=dry_run,
            max_shard_size=o.shard_size(max_shard_size),
            progress=progress,
        )
    written = 0 if dry_run else report.bytes_after
    if json:
        print_json(report, **clock.facts(report.bytes_before, written))
        return
    print_lines(lambda width: edit_table(report, width), quiet=quiet)
    note(f"{report.bank}: {human(report.bytes_before)} → {human(report.bytes_after)}", quiet=quiet)
    note(clock.sentence(report.bytes_before, written), quiet=quiet or dry_run)
