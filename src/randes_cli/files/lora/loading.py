"""Updates as numbers: the factors of one as integers, and what DoRA multiplies weights by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.lora import Gains, LowRank, Squares, low_rank
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.lora.view import Update
from randes_cli.specs import TensorInfo

#: Elements of a weight that are looked at at a time.
_BLOCK = 2**20


def loaded(source: str, update: Update, rows: int, values: Callable[[str], F64]) -> LowRank:
    """An update of a weight of so many rows; `values` are the adapter's tensors, by name."""
    second = values(update.b)
    if update.a is None:
        left, right = second.reshape(1, -1, 1), np.ones((1, 1, 1))
    else:
        first, experts = values(update.a), update.experts
        right = first.reshape(experts, update.rank, -1)
        left = np.moveaxis(second.reshape(-1, update.rank, experts), 2, 0)
        if update.expert is not None:
            left, right = left[update.expert][None], right[update.expert][None]
        if update.rows is not None:
            left = left[:, slice(*update.rows)]
        if update.flip:
            left, right = right.swapaxes(1, 2), left.swapaxes(1, 2)
    if update.place is not None:
        above, below = update.place[0], rows - update.place[1]
        left = np.pad(left, ((0, 0), (above, below), (0, 0)))
    made = low_rank(np.ascontiguousarray(left), np.ascontiguousarray(right), update.scaling)
    if np.isnan(made.unit):
        raise CheckpointError(f"{source}: tensor {update.b!r} or its pair is not finite")
    return made


def all_gains(
    source: str,
    tensor: TensorInfo,
    updates: Sequence[Update],
    values: Callable[[str], F64],
    block: Callable[[int, int], F64],
) -> Gains | None:
    """What a weight is multiplied by after its updates; None where none is DoRA's.

    `block(first, count)` are elements of the weight with its updates.
    """
    dora = [update for update in updates if update.magnitude]
    if not dora:
        return None
    if len({update.place for update in updates}) < len(updates) or (
        len(updates) > 1 and any(update.place is None for update in updates)
    ):
        raise MismatchError(f"{source}: adapts {tensor.name!r} more than once, once by DoRA")
    if dora[0].place is None:
        return _gains(source, tensor, dora[0], values(str(dora[0].magnitude)), block)
    width = tensor.elements // max(1, tensor.shape[0])
    all_rows = np.ones(tensor.shape[0])
    for update in dora:
        first, last = update.place or (0, 0)
        piece = tensor._replace(shape=(last - first, *tensor.shape[1:]))
        below = partial(_from, block, first * width)
        found = _gains(source, piece, update, values(str(update.magnitude)), below)
        all_rows[first:last] = found.values
    return Gains(all_rows, width, across=False)


def _from(block: Callable[[int, int], F64], start: int, first: int, count: int) -> F64:
    return block(start + first, count)


def _gains(
    source: str,
    tensor: TensorInfo,
    update: Update,
    lengths: F64,
    block: Callable[[int, int], F64],
) -> Gains:
    """m / ‖W + s · B · A‖ by output, as PEFT merges DoRA.

    Outputs are rows, or columns of a weight that is stored turned (embeddings, Conv1D).
    `lengths` are m; `block(first, count)` are elements of the weight with its update.
    """
    rows, width = tensor.shape[0], tensor.elements // max(1, tensor.shape[0])
    squares = Squares(rows, width, across=update.flip)
    if len(lengths) != (width if update.flip else rows):
        raise MismatchError(
            f"{source}: {update.magnitude!r} has {len(lengths)} lengths, the base's weight "
            f"{width if update.flip else rows} outputs"
        )
    high = max(1, _BLOCK // max(1, width))
    for take in (squares.look, squares.add):
        for first in range(0, rows, high):
            count = min(high, rows - first)
            take(first, block(first * width, count * width).reshape(count, width))
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = lengths / squares.roots()
    if not np.isfinite(gains).all():
        raise CheckpointError(f"{source}: {update.magnitude!r} or what it is of is zero")
    return Gains(gains, width, update.flip)
