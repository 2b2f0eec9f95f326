"""A parameter that a model repeats before its first dimension, by a number that rows divide.

Factors of `torch.bmm` are made so: [heads, …] once for each of the batch. Whether the number is the
batch's or one of the model's own shows where the result meets inputs: they have as many dimensions
and are as long if it was the batch's. Until then both are possible, and nothing else is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.parameters.intercepted import Intercepted
from randes_cli.live.parameters.spread import Spread


class Folds(NamedTuple):
    """[rows, first, …] of a parameter, of which a row's is to be repeated to [times · first, …]."""

    spread: Spread
    times: int


class Folded(Intercepted):
    """`Folds` as models see it."""

    folds: Folds

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        first = args[0] if args else None
        if isinstance(first, Folded) and not kwargs:
            (data, _), times = first.folds
            shape = torch.Size([times * data.shape[1], *data.shape[2:]])
            if func in _SHAPES:
                return shape[args[1]] if len(args) > 1 else shape
            dims = [dim % len(shape) for dim in args[1:]] if func in _TURNS else [0]
            if 0 not in dims:
                return folded(Folds(Spread(func(data, *[dim + 1 for dim in dims]), 1), times))
        inputs = [v for v in args if isinstance(v, torch.Tensor) and not isinstance(v, Folded)]
        if func in _MEETS and len(inputs) == 1 and not kwargs:
            return func(*[_met(v, inputs[0]) if isinstance(v, Folded) else v for v in args])
        raise MismatchError(
            "a parameter is repeated by the number of rows of the batch, or one that they divide, "
            "in a way that is not known: run the tasks one after the other (randes_cli.Pool)"
        )


def folded(folds: Folds) -> Folded:
    data = folds.spread.data
    made = data.new_empty(0).as_subclass(Folded)
    made.folds = folds
    return made


def _met(value: Folded, inputs: torch.Tensor) -> torch.Tensor:
    """As a plain tensor [times · first, …], each row's with what is its own."""
    (data, _), times = value.folds
    if inputs.dim() != data.dim() - 1 or len(inputs) != times * data.shape[1]:
        raise MismatchError(
            f"inputs {list(inputs.shape)} meet a parameter that is repeated {times} times: whether "
            "for the rows of the batch is not known; use randes_cli.Pool"
        )
    return data.repeat_interleave(times // len(data), 0).flatten(0, 1)


_SHAPES = frozenset((torch.Tensor.size, getattr(torch.Tensor.shape, "__get__")))  # noqa: B009
_TURNS = frozenset((torch.Tensor.transpose, torch.transpose))
_MEETS = frozenset(
    (torch.bmm, torch.Tensor.bmm, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
)
