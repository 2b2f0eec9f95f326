"""Many small tensors of one source at a time: neighbours in a file are read together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randes_cli.core.arrays import F32, I64, Raw
from randes_cli.core.columns import some_columns
from randes_cli.core.convert import widen
from randes_cli.files.local.system import read_at
from randes_cli.files.source import Source, places_of
from randes_cli.files.weight_file import read_error
from randes_cli.specs import ITEM_SIZE

#: Bytes between two tensors that are read sooner than skipped, bytes of one such read, and tensors
#: that it takes the time of.
_GAP, _AT_ONCE, _FEW = 2**14, 2**20, 8


def read_values_of(source: Source, names: Sequence[str], elements: int) -> F32:
    """The float32 values of tensors that have as many elements each, one a row."""
    values = np.empty((len(names), elements), np.float32)
    tensors = some_columns(source.tensors, names)
    kinds: dict[str, list[int]] = {}
    for kind in np.flatnonzero(np.bincount(tensors.kind_of)).tolist():
        alike = np.flatnonzero(tensors.kind_of == kind).tolist()
        kinds.setdefault(tensors.kinds[kind].dtype, []).extend(alike)
    for dtype, rows in kinds.items():
        if len(kinds) == 1:
            raw = read_rows(source, names, elements * ITEM_SIZE[dtype])
            widen(raw.reshape(-1), dtype, values.reshape(-1))
            break
        raw = read_rows(source, [names[row] for row in rows], elements * ITEM_SIZE[dtype])
        found = np.empty(len(rows) * elements, np.float32)
        widen(raw.reshape(-1), dtype, found)
        values[rows] = found.reshape(len(rows), elements)
    return values


def read_rows(source: Source, names: Sequence[str], nbytes: int, start: int = 0) -> Raw:
    """`nbytes` bytes of every tensor from `start` of its data, one a row."""
    made = np.empty((len(names), nbytes), np.uint8)
    places = places_of(source, names)
    here = nbytes > 0 and bool((places[:, 0] >= 0).all())
    places[:, 1] += start
    if not (here and _read_places(places, made, source.source)):
        for row, name in enumerate(names):
            source.read(name, start, made[row])
    return made


def _read_places(places: I64, out: Raw, name: str) -> bool:
    """Fill rows from (descriptor, offset) pairs; False where a file has no such bytes.

    Raises what a read that fails is called, of a source with this name.
    """
    nbytes = out.shape[1]
    order = np.lexsort((places[:, 1], places[:, 0]))
    ends = places[order] + (0, nbytes)
    far = np.diff(ends[:, 1]) > nbytes + _GAP
    starts = np.append(0, np.flatnonzero(far | (np.diff(ends[:, 0]) != 0)) + 1)
    counts = np.diff(np.append(starts, len(order)))
    together = counts > _FEW
    if not _read_alone(places, order[np.repeat(~together, counts)], out, name):
        return False
    for first, count in zip(starts[together].tolist(), counts[together].tolist(), strict=True):
        rows = order[first : first + count]
        most = max(1, _AT_ONCE // max(1, _stride(places[rows, 1], nbytes)))
        for start in range(0, len(rows), most):
            if not _read_run(places, rows[start : start + most], out, name):
                return False
    return True


def _read_alone(places: I64, rows: I64, out: Raw, name: str) -> bool:
    """Fill rows of tensors that lie far from each other; False where a file has no such bytes."""
    nbytes, flat = out.shape[1], out.reshape(-1).data
    try:
        for row, (file, offset) in zip(rows.tolist(), places[rows].tolist(), strict=True):
            if read_at(file, flat[row * nbytes : (row + 1) * nbytes], offset) != nbytes:
                return False
    except OSError as error:
        raise read_error(error, name) from error
    return True


def _stride(offsets: I64, nbytes: int) -> int:
    """Bytes of the file, about, from one of these tensors to the next."""
    return int(offsets[-1] - offsets[0]) // max(1, len(offsets) - 1) or nbytes


def _read_run(places: I64, rows: I64, out: Raw, name: str) -> bool:
    """Fill rows of tensors that lie near each other in a file, in its order, with one read."""
    nbytes = out.shape[1]
    file, first = places[rows[0]].tolist()
    offsets = places[rows, 1] - first
    whole = np.empty(int(offsets[-1]) + nbytes, np.uint8)
    try:
        if read_at(file, whole.data, first) != len(whole):
            return False
    except OSError as error:
        raise read_error(error, name) from error
    out[rows] = np.lib.stride_tricks.sliding_window_view(whole, nbytes)[offsets]
    return True
