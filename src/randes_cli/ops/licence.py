"""The licence of a bank: what its models' own cards say, or their base's on the Hub."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from randes_cli.errors import RandesError
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import file_key
from randes_cli.files.hub_errors import hub_errors
from randes_cli.files.hub_ref import recorded_ref

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CARD = "README.md"
#: Bytes of the longest card that is read for its licence.
_MOST = 2**20


def licence_of(bank: BankFile, api: HfApi) -> str | None:
    """The one licence that the cards in a bank name; the base's on the Hub where they name none.

    None where they name several, or nobody says.
    """
    found = _named_in(bank)
    if len(found) == 1:
        return min(found)
    base = recorded_ref(bank.manifest.base.source)
    if found or base is None:
        return None
    with suppress(RandesError, ValueError, TypeError), hub_errors(base.repo, base.repo):
        card = api.model_info(base.repo).card_data
        return _one(None if card is None else card.get("license"))
    return None


def _named_in(bank: BankFile) -> set[str]:
    """The licences that models' cards name which travel in the bank."""
    files = [record.files for record in bank.manifest.tasks] + [bank.manifest.base.files]
    digests = {
        digest
        for named in files
        for name, digest in named.items()
        if name.rpartition("/")[2] == _CARD
    }
    made = set()
    for key in map(file_key, sorted(digests)):
        if key in bank and bank.info(key).nbytes <= _MOST:
            text = bytes(bank.read_whole(key)).decode("utf-8", "replace")
            made.add(_in_card(text))
    return {licence for licence in made if licence}


def _in_card(text: str) -> str | None:
    """The licence in a card's front matter."""
    from huggingface_hub import ModelCard

    try:
        return _one(ModelCard(text, ignore_metadata_errors=True).data.get("license"))
    except Exception:  # somebody's YAML: what cannot be read names no licence
        return None


def _one(value: object) -> str | None:
    """A licence's id, as the Hub has them."""
    plain = isinstance(value, str) and len(value) <= 64 and value.isascii()
    return value if plain and isinstance(value, str) and value.isprintable() else None
