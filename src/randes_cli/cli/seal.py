"""randes seal"""

from __future__ import annotations

from typing import Annotated

from randes_cli.cli import complete
from randes_cli.cli import options as o
from randes_cli.cli.panels import MADE, option, switch
from randes_cli.cli.talk import Talk
from randes_cli.cli.words import run_options, shard_size
from randes_cli.errors import UsageError
from randes_cli.views.text import human

Bits = Annotated[
    int | None,
    option(
        MADE,
        "N",
        "Bits of a superposed element: 8, 4, 3, 2 or 1.",
        offer=complete.words_of("8", "4", "3", "2", "1"),
    ),
]
Fit = Annotated[
    o.Word,
    option(MADE, "SIZE", "The most bits for a bank within 500MB, or 1.1 times the base."),
]
Out = Annotated[o.Word, o.output(None, "BANK", "The bank to write.")]
InPlace = Annotated[
    bool, switch(None, "Replace the bank itself; this cannot be undone.", "--in-place")
]


def seal(
    bank: o.BankName,
    out: Out = None,
    in_place: InPlace = False,
    bits: Bits = None,
    fit: Fit = None,
    max_shard_size: o.MaxShardSize = None,
    wait: o.Wait = 0.0,
    threads: o.Threads = 0,
    engine: o.Engine = "threads",
    address: o.Address = None,
    dry_run: o.DryRun = False,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Cut superpositions to few bits: a much smaller bank whose present tasks cannot change."""
    from randes_cli import seal as run
    from randes_cli.build.seal.seal import fit_bits
    from randes_cli.cli.render.tables import edit_table
    from randes_cli.cli.render.verdict import warning_lines
    from randes_cli.files.sources import own_bank

    if (out is None) != in_place:
        raise UsageError("say -o BANK for a new bank, or --in-place")
    if bits is None and fit is None:
        raise UsageError("say --bits 8, 4, 3, 2 or 1, or --fit SIZE|RATIO")
    if bits is not None and fit is not None:
        raise UsageError(f"--bits {bits} is what --fit {fit} would choose: say one of them")
    talk = Talk(json=json, quiet=quiet, dry_run=dry_run)
    source, most = own_bank(bank) if in_place else bank, shard_size(max_shard_size)
    with talk.progress() as progress:
        report = run(
            source,
            out,
            fit_bits(source, fit, most) if bits is None else bits,
            run_options(threads, None, engine=engine, address=address),
            force=force,
            wait=wait,
            max_shard_size=most,
            dry_run=dry_run,
            progress=progress,
        )
    would = "would take " * report.dry_run
    sizes = f"{report.bank}: {would}{human(report.bytes_before)} → {human(report.bytes_after)}"
    talk.tell(
        report,
        lambda width: edit_table(report, width),
        read=report.bytes_before,
        written=report.bytes_after,
        after=[*warning_lines(report.after), sizes],
    )
