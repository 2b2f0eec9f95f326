"""What sealing would save, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from randes_cli.build.seal.seal import _Sealing
from randes_cli.files.bank.file import BankFile
from randes_cli.reports import Alternative
from randes_cli.specs import RunOptions
from randes_cli.stats.alternatives import sealing
from randes_cli.stats.frontier import marked
from randes_cli.workers import no_progress

#: Tensors of a base up to which a sealing is laid out to tell its size: of 90,000 it would take
#: three times as long as all the rest that `inspect` says, and the table's "about" is near.
_MOST_TENSORS = 2**13


def with_exact_saving(bank: BankFile, choices: Sequence[Alternative]) -> tuple[Alternative, ...]:
    """The choices of an open bank, that which `sealing` finds with the bytes that it would have.

    Of very many tensors it stays about so.
    """
    found = sealing(choices)
    if found is None or len(bank.manifest.base.tensors) > _MOST_TENSORS:
        return tuple(choices)
    made = _Sealing(str(bank.path), bank, found.best.bits, RunOptions(), no_progress, None)
    size = made.size(made.sealed()[0])
    exact = replace(found.best, bank_bytes=size, exact=True)
    return marked(exact if one is found.best else one for one in choices)
