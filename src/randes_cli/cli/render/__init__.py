"""Reports as text for people."""

from randes_cli.cli.render.bank import bank_view
from randes_cli.cli.render.choices import choice_table
from randes_cli.cli.render.packed import pack_notes, pack_table
from randes_cli.cli.render.tables import (
    bank_diff_view,
    check_table,
    checkpoint_diff_view,
    edit_table,
    interference_table,
)
from randes_cli.cli.render.task import task_view
from randes_cli.cli.render.verdict import lost_lines

__all__ = [
    "bank_diff_view",
    "bank_view",
    "check_table",
    "checkpoint_diff_view",
    "choice_table",
    "edit_table",
    "interference_table",
    "lost_lines",
    "pack_notes",
    "pack_table",
    "task_view",
]
