"""randes report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from randes_cli.cli import options as o
from randes_cli.cli.output import print_json, progress_bar


def report(
    bank: o.BankName,
    out: Annotated[Path, typer.Option("--output", "-o", help="The HTML file.", show_default=False)],
    against: o.Against = None,
    base: o.BaseOption = None,
    threads: o.Threads = 0,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write what is known of a bank as one HTML page, to read, sort, print and send."""
    from randes_cli.files.atomic import check_target, write_whole
    from randes_cli.files.guard import note_sources
    from randes_cli.files.sources import open_bank
    from randes_cli.ops.describe import describe
    from randes_cli.ops.distribution import measured_distribution, stored_distribution
    from randes_cli.stats.curves import lambda_curves
    from randes_cli.views.page import PageData, report_page

    note_sources([bank, base, *(source for _, source in o.originals(against or []))])
    check_target(out, force=force)
    with open_bank(bank) as file:
        if against:
            run = o.run_options(threads, None)
            with progress_bar(quiet=quiet) as progress:
                found = measured_distribution(
                    file, o.originals(against), run, base=base, progress=progress
                )
        else:
            found = stored_distribution(file)
        layers = describe(file, by="layer").rows
        page = report_page(PageData(describe(file), layers, lambda_curves(file), found))
    data = page.encode()
    write_whole(out, data, force=force)
    if json:
        print_json({"report": str(out), "bytes": len(data)})
