"""λ curves: what `tune` measured, or else the relative error that the statistics predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from randes_cli.files.bank.file import BankFile
from randes_cli.stats.breakdown import Breakdown
from randes_cli.stats.stored import open_statistics

Curve = tuple[tuple[float, float], ...]

#: λ of predicted curves: the range that the paper searches.
LAMBDAS = tuple(n / 20 for n in range(21))


@dataclass(frozen=True, slots=True)
class Curves:
    """(λ, value) pairs by task; a score, more being better, if `measured`, else an error."""

    by_task: Mapping[str, Curve]
    measured: bool


def lambda_curves(bank: BankFile) -> Curves:
    """The bank's λ curves: measured where any task was tuned, predicted otherwise."""
    measured = bank.manifest.tuning
    names = [task.name for task in bank.manifest.tasks]
    kept = {name: measured[name] for name in names if name in measured}
    if kept:
        return Curves(kept, measured=True)
    found = Breakdown(bank, open_statistics(bank), "type").whole()
    errors = [found.error(np.full(len(names), value)) for value in LAMBDAS]
    return Curves(
        {
            name: tuple((v, float(e[n])) for v, e in zip(LAMBDAS, errors, strict=True))
            for n, name in enumerate(names)
        },
        measured=False,
    )
