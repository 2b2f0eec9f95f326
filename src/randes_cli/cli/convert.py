"""randes convert"""

from __future__ import annotations

from typing import Annotated

from randes_cli.cli import options as o
from randes_cli.cli.panels import switch
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import shard_size
from randes_cli.views.text import human


def convert(
    bank: o.BankName,
    out: o.NewBank,
    max_shard_size: o.MaxShardSize = None,
    single_file: Annotated[
        bool, switch(None, "Write the bank as one file.", "--single-file")
    ] = False,
    dry_run: o.DryRun = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write a bank as shards, or as one file; no value changes."""
    from randes_cli import convert as run

    talk = Talk(json=json, quiet=quiet, dry_run=dry_run)
    with talk.progress() as progress:
        report = run(
            bank,
            out,
            max_shard_size=shard_size(max_shard_size),
            single_file=single_file,
            force=force,
            dry_run=dry_run,
            progress=progress,
        )
    files = f" in {report.files} files" if report.files > 1 else ""
    would = "would take " * report.dry_run
    line = f"{report.bank}: {would}{human(report.bytes_after)}{files}"
    talk.tell(report, read=report.bytes_before, written=report.bytes_after, after=[line])
