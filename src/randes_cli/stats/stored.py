"""Norms and Gram matrices of a bank: gathered while packing, read when describing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np

from randes_cli.core.arrays import I64
from randes_cli.core.prediction.crossing import Grams
from randes_cli.core.prediction.formula import Prediction, predict
from randes_cli.core.shuffle import layer_type
from randes_cli.errors import UsageError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import FORGOTTEN, GRAM, NORMS, ROUNDED, TAILS
from randes_cli.files.bank.manifest import Manifest
from randes_cli.limits import MOST_APART
from randes_cli.plan import Unit, tensor_bytes
from randes_cli.specs import TensorInfo, Tensors
from randes_cli.stats.grams import During, GramTable, StoredGrams
from randes_cli.stats.lengths import Known, bank_lengths, norm_rows, stored_lengths

Cells = Sequence[tuple[str, tuple[str, ...]]]

#: Gram matrices are kept per tensor while they take less of the base's bytes than the first
#: share, per layer type up to the second (or so many bytes), and as one for all tensors beyond.
GRAM_SHARE = 1 / 64
TYPE_SHARE, TYPE_BYTES = 1 / 8, 2**20
#: The name of a cell of all tensors.
WHOLE = "*"


def choose_cells(units: Sequence[Unit], base: Sequence[TensorInfo], tasks: int) -> Cells:
    """What each pair of Gram matrices covers: a tensor, the tensors of one type, or all.

    Raises UsageError for more tasks than a bank has that superposes nothing.
    """
    names = [name for unit in units for name in unit.names]
    if not names and tasks > MOST_APART:
        raise UsageError(
            f"nothing of these {tasks:,} tasks would be superposed, for all is kept exactly; such "
            f"a bank has {MOST_APART:,} at most: make several"
        )
    pair, room = 2 * 8 * tasks**2, tensor_bytes(base)
    if len(names) * pair <= GRAM_SHARE * room:
        return [(name, (name,)) for name in names]
    types: dict[str, list[str]] = {}
    for name in names:
        types.setdefault(layer_type(name), []).append(name)
    if len(types) * pair <= max(TYPE_SHARE * room, TYPE_BYTES):
        return [(kind, tuple(members)) for kind, members in types.items()]
    return [(WHOLE, tuple(names))] if names else []


def cells_of(names: Sequence[str], cells: Cells) -> I64:
    """The number of each tensor's cell, −1 for none."""
    cell = {name: number for number, (_, members) in enumerate(cells) for name in members}
    return np.fromiter(map(cell.get, names, repeat(-1)), np.int64, len(names))


def predict_bank(manifest: Manifest, statistics: Statistics) -> Prediction:
    """The prediction of every tensor of every task of a bank."""
    lengths = bank_lengths(manifest, statistics.known)
    return predict(lengths, statistics.met(manifest.base.tensors))


@dataclass(frozen=True)
class Statistics:
    """What a bank knows of its deltas.

    Attributes:
        indices: the tasks' indices, in the order of all columns here.
        known: lengths of deltas and of sums.
        grams: cells × 2 × T × T Gram matrices, as they are and as they meet.
        cells: what each pair of Gram matrices covers.
        estimated: pairs of indices whose Gram entries are estimates.
    """

    indices: tuple[int, ...]
    known: Known
    grams: GramTable
    cells: tuple[tuple[str, tuple[str, ...]], ...]
    estimated: frozenset[tuple[int, int]]

    def data(self) -> dict[str, GramTable]:
        """The tensors that hold them, in the order of the file."""
        known = self.known
        made: dict[str, GramTable] = {NORMS: known.norms, ROUNDED: known.rounded}
        later = {TAILS: known.tails, FORGOTTEN: known.forgotten}
        made.update({key: data for key, data in later.items() if data is not None})
        return {**made, GRAM: self.grams}

    def met(self, base: Tensors) -> Grams:
        """The Gram matrices of the deltas as they meet."""
        return Grams(During(self.grams), cells_of(norm_rows(base), self.cells))


def stored_statistics(bank: BankFile) -> Statistics:
    """Those of a bank, in memory."""
    found = open_statistics(bank)
    return replace(found, grams=np.asarray(found.grams))


def open_statistics(bank: BankFile) -> Statistics:
    """Those of a bank that stays open: Gram matrices are read as they are looked at."""
    manifest = bank.manifest
    return Statistics(
        tuple(task.index for task in manifest.tasks),
        stored_lengths(bank),
        StoredGrams(bank),
        manifest.cells,
        manifest.estimated,
    )


def empty_statistics(base: Sequence[TensorInfo], cells: Cells) -> Statistics:
    norms, grams = np.zeros((len(norm_rows(base)), 0)), np.zeros((len(cells), 2, 0, 0))
    known = Known(norms, np.stack([norms, norms]), np.stack([norms, norms]))
    return Statistics((), known, grams, tuple(cells), frozenset())


def drop_tasks(statistics: Statistics, gone: set[int]) -> Statistics:
    if not gone:
        return statistics  # Gram matrices of 90,000 tensors are not copied for nothing
    keep = [n for n, index in enumerate(statistics.indices) if index not in gone]
    return Statistics(
        tuple(statistics.indices[n] for n in keep),
        statistics.known.of(keep),
        np.ascontiguousarray(np.asarray(statistics.grams)[:, :, keep][:, :, :, keep]),
        statistics.cells,
        frozenset(pair for pair in statistics.estimated if not gone & set(pair)),
    )


def merge_cells(statistics: Statistics, cells: Cells) -> Statistics:
    """The same Gram matrices summed over coarser cells."""
    where = {name: number for number, (_, names) in enumerate(cells) for name in names}
    old = np.asarray(statistics.grams)
    grams = np.zeros((len(cells), *old.shape[1:]))
    for number, (_, names) in enumerate(statistics.cells):
        grams[where[names[0]]] += old[number]
    return replace(statistics, grams=grams, cells=tuple(cells))
