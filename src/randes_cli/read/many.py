"""Many small tensors of a task in one go: where they lie is columns, and none has an object.

What is not as plain as this (a share, codes, a resized or a shared tensor, a file elsewhere) is
retrieved by `Retrieval`, piece by piece, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from randes_cli.core.arrays import I64, Array, Raw, address
from randes_cli.core.columns import some_columns
from randes_cli.core.compiled.back import BACKS, WANTED
from randes_cli.core.compiled.run import DTYPES, SIGNS
from randes_cli.core.kernel import Kernel
from randes_cli.core.signs import random_joined
from randes_cli.files.bank.keys import base_key, sum_key
from randes_cli.files.base import bank_places
from randes_cli.files.source import places_of
from randes_cli.plan import Unit, sealable
from randes_cli.read.retrieve import Retrieval

#: Elements of a tensor that is small, and tensors of one call.
_SMALL, _TENSORS = 2**14, 2**10


def small_runs(retrieval: Retrieval) -> Iterator[tuple[str, ...]]:
    """Names of small superposed tensors, as many as one call takes."""
    task, manifest = retrieval.task, retrieval.bank.manifest
    if retrieval.workers.far or task.group in manifest.shares:
        return
    cut = task.group in manifest.sealed
    base, shared, sure = manifest.base.tensors, task.ties, {*task.own, *task.unchanged}
    found = [
        name
        for name, tensor in retrieval.tensors.items()
        if name not in sure
        and name not in shared
        and 0 < tensor.elements <= _SMALL
        and tensor.shape == base[name].shape
        and not (cut and sealable(base[name]))
    ]
    for first in range(0, len(found), _TENSORS):
        yield tuple(found[first : first + _TENSORS])


def send_many(
    retrieval: Retrieval, kernel: Kernel, names: tuple[str, ...], places: I64
) -> list[str]:
    """Write tensors to places in open files, (descriptor, offset) a row; returns those left.

    Raises BankDamaged, MismatchError, and OSError where a write failed.
    """
    units = [retrieval.place(name) for name in names]
    held = tuple(unit.names[position] for unit, position in units)
    keys = [sum_key(retrieval.task.group, name) for name in held]
    if kernel.backer is None or not all(key in retrieval.bank for key in keys):
        return list(names)
    rows = _rows(retrieval, names, keys, places)
    rows["scale"] = _scales(retrieval, held)
    flips = _signs(rows, [unit for unit, _ in units], retrieval.task.seed, held)
    came = kernel.backer.back_many(rows)
    del flips  # until here the rows pointed to it
    if came is None:
        return list(names)
    found, done = came
    _take(retrieval, names, keys, found, done)
    return [names[row] for row in np.flatnonzero(~done).tolist()]


def _rows(retrieval: Retrieval, names: tuple[str, ...], keys: Sequence[str], places: I64) -> Array:
    """Where everything lies; what is of another kind has no elements."""
    rows = np.zeros(len(names), BACKS)
    bank, base = retrieval.bank, retrieval.base
    outputs = [retrieval.tensors[name] for name in names]
    sums = some_columns(bank.header.tensors, keys)
    rows["count"] = [tensor.elements for tensor in outputs]
    rows["dtype"] = [DTYPES.get(tensor.dtype, -1) for tensor in outputs]
    rows["base"], rows["sum_bits"] = -1, sums.of(lambda tensor: _BITS.get(tensor.dtype, -1))
    rows["sum"], rows["sum_at"] = bank_places(bank, keys).T
    rows["into"], rows["to"] = places.T
    rows["wanted"] = WANTED
    fits = (rows["dtype"] >= 0) & (rows["sum"] >= 0) & (rows["sum_bits"] > 0)
    fits &= sums.of(lambda tensor: tensor.elements) == rows["count"]
    if base is not None:
        rows["base"], rows["base_at"] = places_of(base, names).T
        dtypes = some_columns(base.tensors, names)
        rows["base_dtype"] = dtypes.of(lambda tensor: DTYPES.get(tensor.dtype, -1))
        fits &= (rows["base"] >= 0) & (rows["base_dtype"] >= 0)
    rows["count"][~fits] = 0
    return rows


_BITS = {"I8": 8, "I16": 16}


def _scales(retrieval: Retrieval, held: Sequence[str]) -> Array:
    steps = retrieval.bank.manifest.steps
    exponents = np.array([steps[name] for name in held], np.int64)
    scales: Array = retrieval.coefficient * np.ldexp(1.0, exponents)
    return scales


def _signs(rows: Array, units: Sequence[Unit], seed: int, held: tuple[str, ...]) -> Raw:
    """Say how signs lie; returns their bits, which must live until the rows are done."""
    rows["cols"], rows["kind"] = [unit.cols for unit in units], [SIGNS[u.signs] for u in units]
    rows["rows"], rows["view_cols"] = np.array([unit.view for unit in units]).T
    sizes = np.array([unit.form.flip_bytes for unit in units], np.int64)
    flips = np.append(random_joined("signs", seed, held, sizes), np.uint8(0))
    rows["bits"] = address(flips) + np.cumsum(sizes) - sizes
    return flips


def _take(
    retrieval: Retrieval, names: tuple[str, ...], keys: Sequence[str], found: Array, done: Array
) -> None:
    """Check what was read, and note what it came to: each tensor is one chunk."""
    rows = np.flatnonzero(done)
    some = [names[row] for row in rows.tolist()]
    base, store = retrieval.base, retrieval.bank.store
    bases = [] if base is None else [base_key(name) for name in some]
    inside = base is None or base.outside is None
    sums = [keys[row] for row in rows.tolist()]
    plain = not store.shards and inside and bool(some)
    for kind, recorded in (("base", bases), ("sum", sums)):
        if plain and recorded and found[kind][rows].tobytes() == store.only_digests(recorded):
            continue
        for name, key, digest in zip(some, sums, found[kind][rows], strict=True):
            piece = retrieval.pieces(name)[0]
            if kind == "sum":
                retrieval.check_chunk(digest.tobytes(), piece, key)
            else:
                retrieval.check_base(digest.tobytes(), piece)
    retrieval.count_saturated(int(found["lost"][rows].sum()))
    for row in rows[found["negative"][rows] != 0].tolist():
        retrieval.turned.took(names[row], mixed=False, negative=True)
