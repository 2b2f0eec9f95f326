"""randes report"""

from __future__ import annotations

from typing import Annotated

from randes_cli.cli import options as o
from randes_cli.cli.output import print_json, progress_bar
from randes_cli.cli.panels import option
from randes_cli.cli.words import check_originals, originals, run_options


def report(
    bank: o.BankName,
    out: Annotated[str, option(None, "PATH", "The HTML file.", *o.OUTPUT)],
    against: o.Against = None,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write what is known of a bank as one HTML page, to read, sort, print and send."""
    from randes_cli import report as run

    with progress_bar(quiet=quiet) as progress:
        made = run(
            bank,
            out,
            against=originals(against),
            base=base,
            force=force,
            run=run_options(threads, None, allow_pickle=allow_pickle),
            progress=progress,
        )
    if json:
        print_json({"report": made.path, "bytes": made.bytes, "strange": made.strange})
    check_originals(f"{made.path}: written, but", made.strange)
