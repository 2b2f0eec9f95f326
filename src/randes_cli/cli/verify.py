"""randes verify"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from randes_cli.cli import options as o
from randes_cli.cli.output import Clock, note, print_json, print_lines, progress_bar, say
from randes_cli.cli.panels import option, switch
from randes_cli.cli.words import check_originals, originals, run_options
from randes_cli.errors import counted
from randes_cli.views.text import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from randes_cli import VerifyReport


def verify(
    bank: o.BankName,
    quick: Annotated[
        bool, switch(None, "Check header, manifest and statistics only.", "--quick")
    ] = False,
    prune: Annotated[
        bool,
        switch(
            None,
            "Remove files among the shards that the bank does not name (a killed edit's).",
            "--prune",
        ),
    ] = False,
    older_than: Annotated[
        int | None,
        option(
            None,
            "HOURS",
            "In a store, prune what is older than this (24): another may be writing there now.",
            "--older-than",
        ),
    ] = None,
    against: o.Against = None,
    base: o.BaseOption = None,
    allow_pickle: o.AllowPickle = False,
    threads: o.Threads = 0,
    engine: o.Engine = "threads",
    address: o.Address = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Check every byte of a bank; name what is damaged and which tasks it hurts."""
    from randes_cli import verify as run
    from randes_cli.ops.verify import damaged_bank

    clock = Clock(json=json)
    how = run_options(threads, None, allow_pickle=allow_pickle, engine=engine, address=address)
    with progress_bar(quiet=quiet) as progress:
        report = run(
            bank,
            quick=quick,
            prune=prune,
            older_than=older_than,
            against=originals(against),
            base=base,
            run=how,
            progress=progress,
        )
    sound, measured = report.sound, report.sound and bool(against)
    if json:
        facts = clock.facts(report.bytes_checked, 0)
        print_json(report, sound=sound, measured=measured, **facts)
    else:
        _show(report, pruned=prune, quiet=quiet)
        if against and not measured:
            say("not measured against the originals: the bank is damaged", quiet=quiet)
    note(clock.sentence(report.bytes_checked, 0), quiet=quiet or json)
    if not sound:
        raise damaged_bank(bank, report)
    check_originals(f"{bank}: sound, but", report.strange)


def _show(report: VerifyReport, *, pruned: bool, quiet: bool) -> None:
    for check in report.against:
        from randes_cli.cli.render.tables import check_table

        print_lines(partial(check_table, check), quiet=quiet)
    if report.sound:
        say(f"{report.bank}: sound, {human(report.bytes_checked)} checked", quiet=quiet)
    for file, words in report.shards.items():
        say(f"shard {file}: {words}", quiet=quiet)
    if report.pruned:
        say(f"{human(report.pruned)} removed that the index does not name", quiet=quiet)
    if report.unnamed:
        left = f"{counted(len(report.unnamed), 'file')} beside the index that it does not name"
        what = "randes verify --prune removes them"
        if pruned:
            what = (
                "too young to go, for another may be writing them now; --older-than 0 removes them"
            )
        elif "://" in report.bank:
            what += " when they are a day old"
        say(f"{left}: {what}", quiet=quiet)
    for name, words in report.lost.items():
        say(f"{name}: {words}", quiet=quiet)
    for words in report.approximate:
        say(words, quiet=quiet)
    for key in report.damaged:
        say(f"damaged: {key!r}", quiet=quiet)
    for name, keys in report.hurt.items():
        say(f"task {name}: hurt by {len(keys)} of them", quiet=quiet)
    if report.damaged:
        say(f"whole: {', '.join(report.whole) or 'none'}", quiet=quiet)
