"""Updates as numbers: the factors of one as integers, and what DoRA multiplies weights by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Protocol

import numpy as np

from randes_cli.core.arrays import F64
from randes_cli.core.lora import (
    Elements,
    Gains,
    Hadamard,
    Kronecker,
    LowRank,
    Squares,
    Whole,
    Window,
    low_rank,
)
from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.lora.view import Matrix, Update
from randes_cli.specs import TensorInfo

#: Elements of a weight that are looked at at a time.
_BLOCK = 2**20


class Values(Protocol):
    """The values of the adapter's tensors, by name: of all elements, or of so many."""

    def __call__(self, name: str, start: int = 0, count: int | None = None) -> F64: ...


def loaded(source: str, update: Update, tensor: TensorInfo, values: Values) -> Elements:
    """An update of a weight."""
    width = tensor.elements // max(1, tensor.shape[0]) if tensor.shape else 1
    made = _composed(source, update, values) if update.matrices else _low(source, update, values)
    place, skip = update.place, update.rows if update.matrices else None
    if place is not None or skip is not None:
        first, last = place or (0, tensor.shape[0])
        made = Window(made, first * width, last * width, skip[0] * width if skip else 0)
    return made


def _low(source: str, update: Update, values: Values) -> Elements:
    """scaling · B · A, or of some experts."""
    first, second, experts = values(update.a), values(update.b), update.experts
    right = first.reshape(experts, update.rank, -1)
    left = np.moveaxis(second.reshape(-1, update.rank, experts), 2, 0)
    if update.expert is not None:
        left, right = left[update.expert][None], right[update.expert][None]
    if update.rows is not None:
        left = left[:, slice(*update.rows)]
    if update.flip:
        left, right = right.swapaxes(1, 2), left.swapaxes(1, 2)
    return _finite(source, update.b, left, right, update.scaling)


def _finite(source: str, name: str, left: F64, right: F64, scaling: float) -> LowRank:
    """scaling · left · right. Raises CheckpointError where a value is not finite."""
    made = low_rank(np.ascontiguousarray(left), np.ascontiguousarray(right), scaling)
    if np.isnan(made.unit):
        raise CheckpointError(f"{source}: tensor {name!r} or its pair is not finite")
    return made


def _composed(source: str, update: Update, values: Values) -> Elements:
    """What is made of other matrices than B · A."""
    first, *others = update.matrices
    scaled = _matrix(source, first, values, update.scaling)
    if not others:
        return scaled
    second = _matrix(source, others[0], values, 1.0)
    if update.kind != "LoKr":
        return Hadamard(scaled, second)
    left = scaled.elements(0, first.shape[0] * first.shape[1]).reshape(first.shape)
    return Kronecker(left, second, *others[0].shape)


def _matrix(source: str, matrix: Matrix, values: Values, scaling: float) -> Elements:
    """A matrix, times `scaling`."""
    if matrix.right is None:
        return Whole(partial(values, matrix.left), scaling)
    rank = matrix.rank or 1
    left, right = values(matrix.left), values(matrix.right).reshape(rank, -1)
    left = left.reshape(rank, -1).T if matrix.turned else left.reshape(-1, rank)
    if matrix.core is not None:
        core = np.moveaxis(values(matrix.core).reshape(rank, rank, -1), 2, 0)
        inner = _finite(source, matrix.core, core.reshape(1, -1, rank), right[None], 1.0)
        size = (len(core), rank, right.shape[1])
        right = np.moveaxis(inner.elements(0, prod(size)).reshape(size), 0, 2).reshape(rank, -1)
    return _finite(source, matrix.left, left[None], right[None], scaling)


def all_gains(
    source: str,
    tensor: TensorInfo,
    updates: Sequence[Update],
    values: Values,
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
