"""Convolutions of inputs whose rows have tasks of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.batch.selection import Selection
from randes_cli.live.parameters.mixed_parameter import Mixed, with_bias
from randes_cli.live.weights.weight import Weight

#: What comes after the bias, by torch's names: of a convolution, and of a transposed one.
_MORE = ("stride", "padding", "dilation", "groups")
_MORE_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")


def convolution(func: Callable[..., Any], *, transposed: bool = False) -> Callable[..., Any]:
    names = _MORE_TRANSPOSED if transposed else _MORE

    def run(
        selection: Selection,
        input: torch.Tensor,
        weight: Any,
        bias: Any = None,
        *given: Any,
        **named: Any,
    ) -> torch.Tensor:
        _refuse_single(selection, input, weight)
        more, made = {**dict(zip(names, given, strict=False)), **named}, None
        if isinstance(weight, Mixed) and not transposed:
            made = _as_product(input, weight.weight, selection, more)
        if made is None:
            made = _task_by_task(func, selection, input, weight, more)
        return with_bias(made, bias, selection, weight.dim() - 2)

    return run


def _refuse_single(selection: Selection, input: torch.Tensor, weight: torch.Tensor) -> None:
    if selection.only is None and input.dim() < weight.dim():
        raise MismatchError(
            f"a convolution is given {list(input.shape)}, which has no batch; use randes_cli.Pool"
        )


def _task_by_task(
    func: Callable[..., Any],
    selection: Selection,
    input: torch.Tensor,
    weight: Any,
    more: Mapping[str, Any],
) -> torch.Tensor:
    """Rows by the kernels of their tasks, whole; without a bias."""
    if not isinstance(weight, Mixed):
        made: torch.Tensor = func(input, weight, None, **more)
        return made
    whole = weight.weight
    return whole.by_task(input, selection, lambda part, t: func(part, whole.full(t), None, **more))


def windows(weight: Weight, stride: Any, padding: Any, groups: int) -> bool:
    """Whether a convolution is a linear layer of its windows: they do not overlap."""
    kernel = tuple(weight.base.shape[2:])
    strides = (stride,) * len(kernel) if isinstance(stride, int) else tuple(stride)
    still = all(v == 0 for v in ((padding,) if isinstance(padding, int) else padding))
    return kernel == strides and still and groups == 1 and weight.simple is not None


def _as_product(
    x: torch.Tensor, weight: Weight, selection: Selection, more: Mapping[str, Any]
) -> torch.Tensor | None:
    """A convolution whose windows do not overlap, as a linear layer of its windows; else None."""
    stride, padding, groups = more.get("stride", 1), more.get("padding", 0), more.get("groups", 1)
    kernel, dims = tuple(weight.base.shape[2:]), weight.base.dim() - 2
    if not windows(weight, stride, padding, groups) or x.dim() != dims + 2:
        return None
    for axis, size in enumerate(kernel):
        x = x.unfold(2 + axis, size, size)
    # [n, channels, windows …, kernel …] → [n, windows …, channels · kernel]
    places = x.shape[2 : 2 + dims]
    order = [0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims)]
    flat = x.permute(*order).reshape(x.shape[0], -1, weight.base[0].numel())
    made = weight.linear(flat, selection)
    return made.transpose(1, 2).reshape(made.shape[0], -1, *places)
