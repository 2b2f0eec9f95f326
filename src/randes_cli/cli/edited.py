"""What `add` and `remove` say. It is loaded before they write: after a commit no file is read."""

from __future__ import annotations

from collections.abc import Iterable

from randes_cli.cli.render.tables import edit_table
from randes_cli.cli.render.verdict import lost_lines
from randes_cli.cli.talk import Talk
from randes_cli.reports import EditReport


def tell_edit(talk: Talk, report: EditReport, forgotten: Iterable[str]) -> None:
    """What an edit did, and which tasks it only forgot."""
    names = ", ".join(forgotten)
    words = (
        f"forgot {names}: their deltas stay in the bank as interference, and anyone who kept "
        "their seeds can still retrieve them; to take them out, remove them with their checkpoints"
    )
    talk.tell(
        report,
        lambda width: edit_table(report, width),
        read=report.read_bytes,
        written=report.bytes_after,
        after=[*lost_lines(report.after), *([words] if names else [])],
    )
