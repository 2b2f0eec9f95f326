"""Layers that are given a forward of their own while tasks are attached, and those refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from randes_cli.errors import MismatchError
from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.layers import experts, recurrent
from randes_cli.live.layers.attention import attention
from randes_cli.live.layers.convolutions import windows
from randes_cli.live.layers.time_first import batch_first, recurrent_inside
from randes_cli.live.parameters.mixed_parameter import HANDLERS, Mixed, mixed_of
from randes_cli.live.replaced import replace


def special_layers(model: nn.Module, undo: ExitStack) -> None:
    """Give layers that mix up rows a forward that does not.

    Raises MismatchError for those that would answer as the base, or for other rows.
    """
    for module, forward in [*_found(model), *batch_first(model)]:
        replace(module, "forward", forward, undo)


def _found(model: nn.Module) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
    known = set(recurrent_inside(model))
    for name, module in model.named_modules():
        mine = [v for v in module._parameters.values() if isinstance(v, Mixed)]
        first = isinstance(module, nn.MultiheadAttention | nn.RNNBase) and not module.batch_first
        if first and module not in known and mixed_of(module):
            raise MismatchError(
                f"{name or 'the model'}: puts time before the batch; build the model with "
                "batch_first=True, or use randes_cli.Pool"
            )
        where, inside = name or type(module).__name__, _experts(module)
        if mine and isinstance(module, nn.RNNBase):
            yield module, partial(recurrent.forward, module, module.forward)
        elif mine and experts.takes_tokens(module) and experts.is_fused(module):
            yield module, partial(experts.forward, module, mine[0].current)
        elif mine and experts.gives_all(module):
            yield module, partial(experts.all_forward, module, mine[0].current)
        elif inside is not None:
            yield module, partial(_by_task, module.forward, inside.current, where)


def _experts(module: nn.Module) -> Mixed | None:
    """A weight of its experts, where tokens lose sight of their rows: experts that are modules, or
    lie together in a way of their own."""
    if experts.takes_tokens(module):
        return next(iter(mixed_of(module)), None)
    for name, child in module.named_children():
        several = isinstance(child, nn.ModuleList | nn.ModuleDict)
        known = experts.takes_tokens(child) or experts.gives_all(child)
        if name.endswith("experts") and not known:
            return next((v for v in mixed_of(child) if several or v.dim() > 2), None)
    return None


def by_task(model: nn.Module) -> Iterator[str]:
    """Parameters of layers that run the rows of each task alone."""
    for module in model.modules():
        forward = module.__dict__.get("forward")
        alone = isinstance(forward, partial) and forward.func is _by_task
        if alone or isinstance(module, nn.RNNBase | nn.RNNCellBase):
            yield from (v.weight.name for v in mixed_of(module) if v.weight.table is None)
        weight = module._parameters.get("weight")
        if not isinstance(module, nn.modules.conv._ConvNd) or not isinstance(weight, Mixed):
            continue
        apart = windows(weight.weight, module.stride, module.padding, module.groups)
        if module.transposed or not apart:
            yield weight.weight.name


def _by_task(
    forward: Callable[..., Any], current: Current, name: str, *inputs: Any, **more: Any
) -> Any:
    """A layer run for the rows of each task alone, its results put together.

    Its inputs are tensors that have the batch first, and values that hold for all rows.
    """
    selection = current.get()
    if selection.only is not None:
        return forward(*inputs, **more)
    given = [*inputs, *more.values()]
    first = next((v for v in given if isinstance(v, torch.Tensor)), None)
    plain = (torch.Tensor, int, float, bool, str, type(None))
    lines = first is not None and first.shape[:2] == selection.index.shape
    if selection.index.dim() == 2 and lines and all(isinstance(v, plain) for v in given):
        return _by_token(forward, current, name, *inputs, **more)
    if first is None or selection.index.dim() > 1 or not all(isinstance(v, plain) for v in given):
        raise MismatchError(
            f"{name}: its experts are modules of their own, and its inputs do not come by rows; "
            "use randes_cli.Pool"
        )
    count, done = len(first), []
    for task in selection.tasks:
        at = selection.positions(count, [task]).to(first.device)

        def mine(value: Any, task: int = task) -> Any:
            if not isinstance(value, torch.Tensor) or not value.dim() or len(value) < count:
                return value
            if len(value) % count:
                raise MismatchError(f"{name}: takes {list(value.shape)} for {count} rows")
            return value[selection.positions(len(value), [task]).to(value.device)]

        current.selection = Selection.of([task] * len(at), first.device)
        try:
            made = forward(*map(mine, inputs), **{k: mine(v) for k, v in more.items()})
        finally:
            current.selection = selection
        done.append((at, made))
    return _joined(done, count, name)


def _by_token(
    forward: Callable[..., Any], current: Current, name: str, *inputs: Any, **more: Any
) -> Any:
    """`_by_task` for tokens as rows of one token each, where each has its own task."""
    selection = current.get()
    shape = selection.index.shape

    def alone(value: Any) -> Any:
        lines = isinstance(value, torch.Tensor) and value.shape[:2] == shape
        return value.flatten(0, 1).unsqueeze(1) if lines else value

    def whole(made: Any) -> Any:
        if isinstance(made, tuple | list):
            return type(made)(map(whole, made))
        lines = isinstance(made, torch.Tensor) and made.dim() > 2 and len(made) == shape.numel()
        return made.reshape(*shape, *made.shape[2:]) if lines else made

    current.selection = Selection.of(selection.host, selection.index.device)
    try:
        given = {key: alone(value) for key, value in more.items()}
        return whole(_by_task(forward, current, name, *map(alone, inputs), **given))
    finally:
        current.selection = selection


def _joined(done: list[tuple[torch.Tensor, Any]], count: int, name: str) -> Any:
    """The results of several rows each, in the order of the rows."""
    sample = done[0][1]
    if isinstance(sample, tuple | list):
        columns = [[(at, made[k]) for at, made in done] for k in range(len(sample))]
        return type(sample)(_joined(column, count, name) for column in columns)
    if not isinstance(sample, torch.Tensor):
        return sample
    total = sample.new_empty(count, *_by_row(sample, len(done[0][0]), name).shape[1:])
    for at, made in done:
        total[at] = _by_row(made, len(at), name)
    return total if len(sample) == len(done[0][0]) else total.flatten(0, 1)


def _by_row(made: torch.Tensor, rows: int, name: str) -> torch.Tensor:
    """[rows, …] of a result, of which a row may have several lines (its tokens)."""
    if not made.dim() or len(made) % rows:
        raise MismatchError(f"{name}: gives {list(made.shape)} for {rows} rows")
    return made if len(made) == rows else made.reshape(rows, -1, *made.shape[1:])


HANDLERS[F.multi_head_attention_forward] = attention
