"""Reports as text for people."""

from randes_cli.cli.render.bank import bank_view, task_view
from randes_cli.cli.render.tables import (
    check_table,
    edit_table,
    interference_table,
    pack_notes,
    pack_table,
)

__all__ = [
    "bank_view",
    "check_table",
    "edit_table",
    "interference_table",
    "pack_notes",
    "pack_table",
    "task_view",
]
