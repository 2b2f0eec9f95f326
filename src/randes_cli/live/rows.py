"""A small parameter of which each row of the batch has its own, and what may be done with it.

It looks as the parameter does, its rows hidden before its first dimension. What is not known
here is an error: an operation that took the rows for something else would answer wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from randes_cli.errors import MismatchError

#: Operations on single elements.
_ELEMENTWISE = frozenset(
    "abs exp neg sigmoid tanh relu gelu silu softplus sqrt rsqrt log clamp clamp_min clamp_max "
    "square reciprocal float half bfloat16 double type_as contiguous clone detach __neg__ "
    "expm1 log1p sin cos erf".split()
)
#: Operations on two tensors that are stretched to one shape.
_PAIRWISE = frozenset(
    "add sub mul div pow true_divide rsub multiply __add__ __radd__ __sub__ __rsub__ __mul__ "
    "__rmul__ __truediv__ __rtruediv__ __pow__ __rpow__ __iadd__ __isub__ __imul__ add_ sub_ mul_ "
    "maximum minimum where".split()
)


class Rows(torch.Tensor):
    """[rows, …] (or [rows, tokens, …]) that passes for […]. Made by `rows_of`."""

    lead: int

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return apply(func, args, dict(kwargs or {}))


def rows_of(data: torch.Tensor, lead: int) -> Rows:
    """Hide the `lead` first dimensions of a tensor."""
    made = data.as_subclass(Rows)
    made.lead = lead
    return made


def plain(rows: Rows) -> torch.Tensor:
    """All of it, as a tensor like any other."""
    with torch._C.DisableTorchFunctionSubclass():
        return rows.as_subclass(torch.Tensor)


def apply(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What `func` gives where some arguments are `Rows`. Raises MismatchError if not known."""
    name = _name(func)
    first = args[0] if args else None
    if name in _PROPERTIES and isinstance(first, Rows):
        return _PROPERTIES[name](first, *args[1:])
    if name in _ELEMENTWISE and isinstance(first, Rows):
        made = func(plain(first), *map(_plain, args[1:]), **kwargs)
        return rows_of(made, first.lead)
    if name == "to" and isinstance(first, Rows):
        return rows_of(plain(first).to(*map(_plain, args[1:]), **kwargs), first.lead)
    if name in _SHAPES and isinstance(first, Rows):
        return _SHAPES[name](first, *args[1:], **kwargs)
    if name in _PAIRWISE:
        return _pairwise(func, args, kwargs)
    if name == "scaled_dot_product_attention" and not isinstance(first, Rows):
        known = {k: align(v, args[0]) if isinstance(v, Rows) else v for k, v in kwargs.items()}
        return func(*[align(v, args[0]) if isinstance(v, Rows) else v for v in args], **known)
    if name in ("conv1d", "conv2d", "conv3d") and not isinstance(first, Rows):
        return _convolution(func, *args, **kwargs)
    raise MismatchError(
        f"{name} on a parameter that differs among the tasks of a batch is not known: "
        "run the tasks one after the other (randes_cli.Pool)"
    )


def _name(func: Callable[..., Any]) -> str:
    if func.__name__ == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", "?"))
    return func.__name__


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, Rows) else value


def _pairwise(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rows with a number or a tensor that all rows share: rows. With inputs: a plain tensor."""
    rows = [value for value in args if isinstance(value, Rows)]
    lead, dims = rows[0].lead, max(plain(value).dim() - value.lead for value in rows)
    others = [v for v in args if isinstance(v, torch.Tensor) and not isinstance(v, Rows)]
    inputs = next((v for v in others if _has_rows(v, rows[0])), None)
    if inputs is None:
        shared = [_padded(v, dims) if isinstance(v, Rows) else v for v in args]
        return rows_of(func(*shared, **kwargs), lead)
    return func(*[align(v, inputs) if isinstance(v, Rows) else v for v in args], **kwargs)


def _has_rows(other: torch.Tensor, rows: Rows) -> bool:
    """Whether a tensor that meets `rows` has the batch as its first dimension."""
    dims = plain(rows).dim() - rows.lead
    if other.dim() == 0 or other.dim() < dims:
        return False
    if other.dim() > dims:
        return True
    return bool(dims and plain(rows).shape[rows.lead] == 1 and other.shape[0] != 1)


def _padded(rows: Rows, dims: int) -> torch.Tensor:
    data = plain(rows)
    for _ in range(dims - (data.dim() - rows.lead)):
        data = data.unsqueeze(rows.lead)
    return data


def align(rows: Rows, inputs: torch.Tensor) -> torch.Tensor:
    """As a plain tensor that meets inputs [n, …]: n is the number of rows, or a multiple."""
    data, lead = plain(rows), rows.lead
    dims = data.dim() - lead
    if dims == inputs.dim():
        if data.shape[lead] != 1:
            raise MismatchError(f"a parameter {list(data.shape[lead:])} takes the batch's place")
        data, dims = data.squeeze(lead), dims - 1
    if lead == 2 and tuple(inputs.shape[:2]) != tuple(data.shape[:2]):
        data, lead = data.flatten(0, 1), 1
    count = inputs.shape[0]
    if lead == 1 and count not in (1, data.shape[0]):
        if count % data.shape[0]:
            raise MismatchError(f"inputs {list(inputs.shape)} do not come by rows of the batch")
        data = data.repeat_interleave(count // data.shape[0], 0)
    for _ in range(inputs.dim() - lead - dims):
        data = data.unsqueeze(lead)
    return data


def _convolution(
    func: Callable[..., Any],
    input: torch.Tensor,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Each row by its own kernel: one convolution with as many times more groups."""
    if not isinstance(weight, Rows) or weight.lead != 1 or len(input) % len(plain(weight)):
        raise MismatchError("a convolution by kernels that differ among tasks, not by rows")
    rows, times = len(input), len(input) // len(plain(weight))
    kernels = plain(weight).repeat_interleave(times, 0).flatten(0, 1)
    joined = input.reshape(1, -1, *input.shape[2:])
    made = func(joined, kernels, None, stride, padding, dilation, groups * rows)
    made = made.reshape(rows, -1, *made.shape[2:])
    if bias is None:
        return made
    if isinstance(bias, Rows):
        for _ in range(made.dim() - 2):
            bias = bias.unsqueeze(-1)
        return made + align(bias, made)
    return made + bias.reshape(-1, *[1] * (made.dim() - 2))


def _shape(rows: Rows) -> torch.Size:
    return torch.Size(plain(rows).shape[rows.lead :])


def _size(rows: Rows, dim: int | None = None) -> Any:
    return _shape(rows) if dim is None else _shape(rows)[dim]


def _sizes(rows: Rows, *sizes: Any) -> tuple[list[int], bool]:
    """Sizes as given, and whether the first of them is that of a batch."""
    given = list(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else list(sizes)
    shape, count = _shape(rows), plain(rows).shape[0]
    longer = len(given) > len(shape)
    batch = (longer or (len(shape) > 0 and shape[0] == 1)) and given[0] % count == 0
    return given, batch and given[0] != -1


def _expand(rows: Rows, *sizes: Any) -> Any:
    given, batch = _sizes(rows, *sizes)
    data = plain(rows)
    if not batch:
        return rows_of(data.expand(*data.shape[: rows.lead], *given), rows.lead)
    return align(rows, data.new_empty(given[0], *[0] * (len(given) - 1))).expand(*given)


def _repeat(rows: Rows, *sizes: Any) -> Any:
    given, batch = _sizes(rows, *sizes)
    if not batch:
        raise MismatchError("repeat of a parameter that differs among tasks, not by the batch")
    data = align(rows, plain(rows).new_empty(given[0], *[0] * (len(given) - 1)))
    return data.repeat(1, *given[1:])


def _index(rows: Rows, item: Any) -> Any:
    items = item if isinstance(item, tuple) else (item,)
    return rows_of(plain(rows)[(slice(None),) * rows.lead + items], rows.lead)


def _reshape(rows: Rows, *sizes: Any) -> Rows:
    given, _ = _sizes(rows, *sizes) if sizes else ([], False)
    data = plain(rows)
    return rows_of(data.reshape(*data.shape[: rows.lead], *given), rows.lead)


def _permute(rows: Rows, *dims: Any) -> Rows:
    order = list(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else list(dims)
    data, lead = plain(rows), rows.lead
    count = data.dim() - lead
    return rows_of(data.permute(*range(lead), *[lead + d % count for d in order]), lead)


def _axis(rows: Rows, dim: int, more: int = 0) -> int:
    return rows.lead + dim % (plain(rows).dim() - rows.lead + more)


_PROPERTIES: dict[str, Callable[..., Any]] = {
    "shape": _shape,
    "size": _size,
    "dim": lambda rows: len(_shape(rows)),
    "ndim": lambda rows: len(_shape(rows)),
    "dtype": lambda rows: plain(rows).dtype,
    "device": lambda rows: plain(rows).device,
    "requires_grad": lambda rows: False,
    "is_floating_point": lambda rows: plain(rows).is_floating_point(),
}
_SHAPES: dict[str, Callable[..., Any]] = {
    "expand": _expand,
    "repeat": _repeat,
    "__getitem__": _index,
    "view": _reshape,
    "reshape": _reshape,
    "permute": _permute,
    "unsqueeze": lambda rows, dim: rows_of(plain(rows).unsqueeze(_axis(rows, dim, 1)), rows.lead),
    "squeeze": lambda rows, dim: rows_of(plain(rows).squeeze(_axis(rows, dim)), rows.lead),
    "transpose": lambda rows, one, two: rows_of(
        plain(rows).transpose(_axis(rows, one), _axis(rows, two)), rows.lead
    ),
}
