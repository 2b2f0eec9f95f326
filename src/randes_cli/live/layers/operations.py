"""What torch's operations give on parameters that answer each row with its own task's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.errors import MismatchError
from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.layers.convolutions import convolution
from randes_cli.live.parameters.mixed_parameter import (
    HANDLERS,
    Mixed,
    as_rows,
    rows,
    unknown_rows,
    with_bias,
)
from randes_cli.live.parameters.rows import Rows, apply, rows_of, spread_of
from randes_cli.live.parameters.spread import Spread, met
from randes_cli.live.weights.weight import Weight


def linear(selection: Selection, input: Any, weight: Any, bias: Any = None) -> torch.Tensor:
    """F.linear. Of an input that all rows share each row has its own result: `Rows`."""
    if isinstance(input, Mixed):
        input = rows(input, selection)
    given = spread_of(input)
    if isinstance(given, Spread):
        return rows_of(linear(selection, given.data, weight, bias), given.lead)
    if isinstance(weight, Mixed) and weight.dim() == 1:
        mine, side = as_rows(weight, selection), as_rows(bias, selection)
        several = isinstance(mine, Spread) or isinstance(side, Spread)
        return apply(F.linear, [given, mine, side], {}) if several else F.linear(given, mine, side)
    if isinstance(weight, Mixed):
        if _shared(weight, selection):
            made = with_bias(weight.product(given[None], selection), bias, selection)
            return rows_of(made, 1)
        made = weight.product(given, selection)
    else:
        made = F.linear(given, weight)
    made = with_bias(made, bias, selection)
    if len(made) == len(given):
        return made
    return rows_of(made.reshape(*selection.index.shape, 1, *made.shape[1:]), selection.index.dim())


def _shared(weight: Mixed, selection: Selection) -> bool:
    several = selection.only is None and selection.index.dim() == 1
    return several and weight.weight.shared


def _addmm(
    selection: Selection, bias: Any, x: torch.Tensor, weight: Any, **scales: Any
) -> torch.Tensor:
    """torch.addmm, as GPT-2's Conv1D calls it."""
    if scales or isinstance(x, Mixed):
        raise MismatchError("addmm of weights of many tasks with scales, or as its first factor")
    return with_bias(_matmul(selection, x, weight), bias, selection)


def _matmul(selection: Selection, x: Any, weight: Any) -> torch.Tensor:
    if isinstance(x, Mixed):
        if weight.dim() < 3 or isinstance(weight, Mixed):
            raise MismatchError(f"{x.weight.name}: a product of it and a matrix without rows")
        turned: torch.Tensor = weight.transpose(-1, -2)
        return x.product(turned, selection).transpose(-1, -2)
    if isinstance(weight, Mixed) and weight.dim() == 1:
        return linear(selection, x, weight)
    if isinstance(weight, Mixed):
        if _shared(weight, selection):
            return rows_of(weight.product(x[None], selection, turned=True), 1)
        return weight.product(x, selection, turned=True)
    made: torch.Tensor = torch.matmul(x, weight)
    return made


def _embedding(
    selection: Selection,
    input: torch.Tensor,
    weight: Any,
    padding_idx: Any = None,
    max_norm: float | None = None,
    *_: Any,
    **__: Any,
) -> Any:
    """F.embedding; padding and the like matter to gradients alone."""
    ids, table = input, weight.weight
    if max_norm is not None:
        raise MismatchError(
            f"{table.name}: max_norm shortens rows where they lie; use randes_cli.Pool"
        )
    if weight.turned:
        raise unknown_rows(table)
    if selection.only is not None:
        return table.embed(ids, selection.only)
    index = selection.index.to(ids.device)
    shared = ids.dim() == 1 or (len(ids) == 1 and len(index) > 1)
    # Distances are between two positions; with a third dimension those of each row.
    far = table.relative and (ids.dim() < 3 or len(ids) % len(index) != 0)
    places = _places(ids, len(index)) and not (table.positional and len(ids) == index.shape[-1])
    if far or (table.positional and shared and index.dim() == 1) or places:
        if index.dim() == 2:
            raise MismatchError(f"{table.name}: relative positions with a task for each token")
        return rows_of(table.embed(ids.expand(len(index), *ids.shape), index), 1)
    if index.dim() == 2:
        if tuple(ids.shape[-2:]) == tuple(index.shape) or (ids.dim() == 2 and ids.shape[0] == 1):
            return table.embed(ids.expand(index.shape), index)
        if table.positional and ids.dim() == 1:  # each row has a table by its tokens' tasks
            return rows_of(table.embed(ids.expand(index.shape), index), 1)
        return table.embed(ids, selection.along(ids))
    if ids.dim() == 1 and len(ids) == len(index) and _places(ids, 0):
        raise MismatchError(f"{table.name}: its inputs may be rows or positions: give them a batch")
    spread = selection.along(ids)
    return table.embed(ids.expand(max(len(ids), len(spread)), *ids.shape[1:]), spread)


def _places(ids: torch.Tensor, rows: int) -> bool:
    """Whether ids are 0, 1, 2 …: places that all rows share, not their tokens."""
    if ids.dim() != 1 or len(ids) in (1, rows):
        return False
    return bool((ids == torch.arange(len(ids), device=ids.device)).all())


def _lookup(selection: Selection, weight: Any, item: Any) -> Any:
    """weight[ids] of a table of positions."""
    whole = isinstance(item, torch.Tensor) and item.dtype == torch.long and item.dim() > 0
    if isinstance(weight, Mixed) and whole and weight.weight.positional:
        return _embedding(selection, item, weight)
    several = selection.only is None and isinstance(weight, Mixed)
    if several and weight.weight.table is None and not weight.weight.positional:
        place, index = _one_row(item), selection.index.to(weight.device)
        if place is None or weight.turned:
            raise unknown_rows(weight.weight)
        return rows_of(
            weight.weight.embed(torch.full_like(index, place), index), selection.index.dim()
        )
    found = rows(weight, selection)
    if isinstance(found, Spread):
        return apply(torch.Tensor.__getitem__, [found, item], {})
    return found[item]


def _one_row(item: Any) -> int | None:
    """Which row of a matrix is taken, as that of a padding token is; None for all else."""
    first, *others = item if isinstance(item, tuple) else (item,)
    alone = type(first) is int and all(isinstance(o, slice) and o == slice(None) for o in others)
    return first if alone and first >= 0 else None


def _channels(selection: Selection, value: Any, made: torch.Tensor) -> Any:
    """A vector of channels, shaped to meet [n, channels, …]."""
    return met(rows(value, selection), made, made.dim() - 2)


def _scaled(
    selection: Selection, made: torch.Tensor, weight: Any, bias: Any, dims: int = 0
) -> torch.Tensor:
    """What is normalised by its weight and bias, which so many dimensions are behind."""
    if weight is not None:
        made = made * met(rows(weight, selection), made, dims)
    return with_bias(made, bias, selection, dims)


def _layer_norm(
    selection: Selection,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    return _scaled(selection, F.layer_norm(input, normalized_shape, eps=eps), weight, bias)


def _rms_norm(
    selection: Selection,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: Any = None,
    eps: float | None = None,
) -> torch.Tensor:
    return _scaled(selection, F.rms_norm(input, normalized_shape, eps=eps), weight, None)


def _group_norm(
    selection: Selection,
    input: torch.Tensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    made = F.group_norm(input, num_groups, eps=eps)
    return _scaled(selection, made, weight, bias, made.dim() - 2)


def _batch_norm(
    selection: Selection,
    input: torch.Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    if training:
        raise MismatchError("batch norm is run in training mode: call model.eval() first")
    mean, variance = (_channels(selection, v, input) for v in (running_mean, running_var))
    made: torch.Tensor = (input - mean) * torch.rsqrt(variance + eps)
    return _scaled(selection, made, weight, bias, made.dim() - 2)


def _prelu(selection: Selection, input: torch.Tensor, weight: Any) -> torch.Tensor:
    return torch.where(input >= 0, input, input * _channels(selection, weight, input))


def _on_inputs(func: Callable[..., Any], handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler`, and row by row what a model computes of parameters alone."""

    def run(selection: Selection, input: Any, *args: Any, **more: Any) -> Any:
        if isinstance(input, Mixed):
            input = rows(input, selection)
        if isinstance(input, (Spread, Rows)):
            known = {name: as_rows(value, selection) for name, value in more.items()}
            return apply(func, [as_rows(value, selection) for value in (input, *args)], known)
        return handler(selection, input, *args, **more)

    return run


def mixed_parameter(weight: Weight, current: Current) -> Mixed:
    """A parameter that shares the base's memory."""
    made = weight.base.as_subclass(Mixed)
    made.weight, made.current = weight, current
    return made


_KNOWN: dict[Any, Callable[..., Any]] = {
    F.linear: linear,
    F.embedding: _embedding,
    torch.addmm: _addmm,
    torch.matmul: _matmul,
    torch.mm: _matmul,
    torch.Tensor.mm: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.Tensor.__getitem__: _lookup,
}
_KNOWN_ON_INPUTS: dict[Any, Callable[..., Any]] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.prelu: _prelu,
    **{func: convolution(func) for func in (F.conv1d, F.conv2d, F.conv3d)},
    **{
        func: convolution(func, transposed=True)
        for func in (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    },
}
HANDLERS.update(_KNOWN)
HANDLERS.update({func: _on_inputs(func, known) for func, known in _KNOWN_ON_INPUTS.items()})
