"""How long deltas are beside their base: what tells far fine-tunes from near ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.columns import columns
from randes_cli.errors import RandesError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.base import BankBase
from randes_cli.files.source import Source, read_values
from randes_cli.plan import sample_runs, superposable
from randes_cli.specs import BaseStorage
from randes_cli.stats.lengths import norm_rows
from randes_cli.stats.stored import Statistics

#: Matrices that are looked at, those with most of the deltas' energy; of each so many elements
#: in so many runs.
_MATRICES, _SAMPLE = 8, (4096, 2)


def base_inside(bank: BankFile) -> Source | None:
    """The base in a bank; None where looking at it takes requests to a store."""
    inside = bank.manifest.base.storage is BaseStorage.embed and not bank.far
    return BankBase(bank, None) if inside else None


def bank_lengths_beside(bank: BankFile, statistics: Statistics) -> list[float | None]:
    """`lengths_beside` of an open bank, unknown where its base cannot be read."""
    with suppress(RandesError, OSError):
        return lengths_beside(bank.manifest, statistics, base_inside(bank))
    return [None] * len(bank.manifest.tasks)


def lengths_beside(
    manifest: Manifest, statistics: Statistics, base: Source | None
) -> list[float | None]:
    """‖Δ‖ / ‖Θ₀‖ of every task, over the matrices that change most and a sample of the base's.

    None where that cannot be told: without a base at hand, of one outside the bank (which may be
    gone when it is asked for again) or of zeros, and of tasks that changed none of these matrices.
    Raises what reading the base does.
    """
    tasks = len(manifest.tasks)
    if base is None or not tasks or manifest.base.storage is not BaseStorage.embed:
        return [None] * tasks
    norms = statistics.known.norms
    chosen = list(_most_changed(manifest, norms))
    names = norm_rows(manifest.base.tensors)
    found = np.array([_energy(base, names[row]) for row in chosen], np.float64)
    return _ratios(norms[chosen], found)


def _most_changed(manifest: Manifest, norms: F64) -> Iterator[int]:
    """Rows of the matrices that have most of the deltas' energy."""
    tensors = manifest.base.tensors
    shapes = columns(tensors)
    matrix = shapes.where(lambda tensor: len(tensor.shape) >= 2)[shapes.where(superposable)]
    energy = np.where(matrix, norms.sum(axis=1), 0.0)
    for row in np.argsort(-energy, kind="stable")[:_MATRICES].tolist():
        if energy[row] > 0:
            yield row


def _energy(base: Source, name: str) -> float:
    """‖Θ₀‖² of a tensor, from its sample."""
    tensor = base.tensors[name]
    values = read_values(base, name, sample_runs(*tensor.matrix, _SAMPLE)).astype(np.float64)
    return float(np.square(values).mean()) * tensor.elements


def _ratios(norms: F64, energies: F64) -> list[float | None]:
    """The square roots of each task's energy in those of the matrices that it changed."""
    made: list[float | None] = []
    for column in norms.T:
        beside = float(energies[column > 0].sum())
        known = np.isfinite(beside) and beside > 0
        made.append(float(np.sqrt(column.sum() / beside)) if known else None)
    return made
