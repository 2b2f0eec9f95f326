"""A bank by the name a user gives it: a file here, or one on the Hub."""

from __future__ import annotations

from pathlib import Path

from randes_cli.errors import UsageError
from randes_cli.files.bank import BankFile
from randes_cli.files.hub_ref import HubRef, parse_ref


def _on_hub(name: str) -> HubRef | None:
    """The reference that a name is, where no file here has it."""
    return None if Path(name).exists() else parse_ref(name)


def open_bank(name: str) -> BankFile:
    """Open a bank; of one on the Hub only what is asked for is read, by range.

    Raises what `BankFile` raises, and HubError.
    """
    ref = _on_hub(name)
    if ref is None:
        return BankFile(Path(name))
    from randes_cli.files.hub import open_remote_bank

    return open_remote_bank(ref)


def bank_path(name: str) -> Path:
    """The file of a bank; one on the Hub is downloaded into the user's cache first."""
    ref = _on_hub(name)
    if ref is None:
        return Path(name)
    from randes_cli.files.hub import fetch, open_hub_bank

    return fetch(open_hub_bank(ref)).path


def own_bank(name: str) -> Path:
    """The file of a bank that is to be edited. Raises UsageError for one on the Hub."""
    if _on_hub(name) is not None:
        raise UsageError(f"{name}: a bank on the Hub is not edited; download it and push it again")
    return Path(name)
