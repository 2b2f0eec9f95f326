"""randes convert"""

from __future__ import annotations

from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, human, note, print_json, progress_bar


def convert(
    bank: o.BankName,
    out: Annotated[
        str, typer.Option("--output", "-o", help="The bank to write.", show_default=False)
    ],
    max_shard_size: o.MaxShardSize = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write the bank as one file.")
    ] = False,
    dry_run: o.DryRun = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write a bank as shards, or as one file; no value changes."""
    from randes_cli import convert as run

    clock = Clock(json=json)
    with progress_bar(quiet=quiet) as progress:
        report = run(
            bank,
            out,
            max_shard_size=o.shard_size(max_shard_size),
            single_file=single_file,
            force=force,
            dry_run=dry_run,
            progress=progress,
        )
    written = 0 if dry_run else report.bytes_after
    if json:
        print_json(report, **clock.facts(report.bytes_before, written))
        return
    files = f" in {report.files} files" if report.files > 1 else ""
    note(f"{report.bank}: {human(report.bytes_after)}{files}", quiet=quiet)
    note(clock.sentence(report.bytes_before, written), quiet=quiet or dry_run)
