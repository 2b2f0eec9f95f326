"""randes push"""

from __future__ import annotations

from typing import Annotated

from randes_cli.cli import options as o
from randes_cli.cli.output import note, print_json, progress_bar, say
from randes_cli.cli.panels import argument, option, switch
from randes_cli.cli.words import shard_size
from randes_cli.views.text import human

Bank = Annotated[str, argument("BANK", "The bank.")]
Repo = Annotated[str, argument("REPO", "Where to: org/name.")]
Private = Annotated[bool, switch(None, "Make a new repository private.", "--private")]
Revision = Annotated[o.Word, option(None, "NAME", "A branch, made if missing (default: main).")]
Message = Annotated[o.Word, option(None, "TEXT", "Commit message.", "--message", "-m")]
License = Annotated[
    o.Word,
    option(
        None,
        "ID",
        "Licence of the card, as apache-2.0 (default: what the models' cards say, or the base's).",
    ),
]
Collection = Annotated[
    o.Word,
    option(
        None,
        "TITLE",
        "Put the bank into this collection of the owner's, made if missing; or a slug.",
    ),
]


def push(
    bank: Bank,
    repo: Repo,
    private: Private = False,
    revision: Revision = None,
    message: Message = None,
    license: License = None,
    collection: Collection = None,
    max_shard_size: o.MaxShardSize = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Upload a bank to the Hugging Face Hub, with a model card that says what it holds."""
    from randes_cli import push as run

    with progress_bar(quiet=quiet or json):  # the client draws its own, where there may be one
        report = run(
            bank,
            repo,
            private=private,
            revision=revision,
            message=message,
            max_shard_size=shard_size(max_shard_size),
            license=license,
            collection=collection,
            dry_run=dry_run,
        )
    if json:
        print_json(report)
        return
    if dry_run:
        files = f" in {report.files} files" if report.files > 1 else ""
        made = ", which is made" if report.new else ""
        note(f"would upload {human(report.bytes)}{files} to {report.url}{made}", quiet=quiet)
    else:
        say(report.url, quiet=quiet)
    if not report.card:
        note("the repository's own README stays as it was", quiet=quiet)
    elif report.license is None:
        note("no licence is known, so the card names none: say --license ID", quiet=quiet)
    if report.collection:
        say(report.collection, quiet=quiet)
