"""A small parameter of which each row of the batch has its own, and what may be done with it.

It looks as the parameter does, its rows hidden before its first dimension. What is not known
here is an error: an operation that took the rows for something else would answer wrongly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.intercepted import Intercepted, plain

#: Operations on single elements.
_ELEMENTWISE = frozenset(
    (
        *("abs", "exp", "neg", "sigmoid", "tanh", "relu", "gelu", "silu", "softplus", "sqrt"),
        *("rsqrt", "log", "log1p", "expm1", "clamp", "clamp_min", "clamp_max", "square"),
        *("reciprocal", "sin", "cos", "erf", "__neg__"),
        *("to", "type_as", "float", "half", "bfloat16", "double"),
        *("contiguous", "clone", "detach", "zero_"),
    )
)
#: Operations on two tensors that are stretched to one shape.
_PAIRWISE = frozenset(
    (
        *("add", "sub", "rsub", "mul", "multiply", "div", "true_divide", "pow"),
        *("maximum", "minimum", "where", "add_", "sub_", "mul_"),
        *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__pow__"),
        *("__rpow__", "__truediv__", "__rtruediv__", "__iadd__", "__isub__", "__imul__"),
    )
)


class Spread(NamedTuple):
    """[rows, …] (or [rows, tokens, …], where `lead` is 2) of a parameter […]."""

    data: torch.Tensor
    lead: int

    @property
    def shape(self) -> torch.Size:
        """Of one row's parameter."""
        return torch.Size(self.data.shape[self.lead :])


class Rows(Intercepted):
    """A `Spread` that passes for one row's parameter, where a model computes with it."""

    lead: int

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        known = {name: spread_of(value) for name, value in kwargs.items()}
        return apply(func, [spread_of(value) for value in args], known)


def rows_of(data: torch.Tensor, lead: int) -> Rows:
    """Hide the `lead` first dimensions of a tensor."""
    made = data.as_subclass(Rows)
    made.lead = lead
    return made


def spread_of(value: Any) -> Any:
    """`Rows` as what `apply` takes."""
    if type(value) in (list, tuple):
        return type(value)(spread_of(inner) for inner in value)
    return Spread(plain(value), value.lead) if isinstance(value, Rows) else value


def apply(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What `func` gives where some arguments are a `Spread`: `Rows` again, or a plain tensor.

    Raises MismatchError where that is not known.
    """
    name, first = name_of(func), args[0] if args else None
    if isinstance(first, Spread):
        known = _PROPERTIES.get(name) or _SHAPES.get(name)
        if known is not None:
            return known(first, *args[1:], **kwargs)
        if name in _ELEMENTWISE or (name == "linear" and not list(_spreads(args[1:]))):
            return rows_of(func(first.data, *map(_plain, args[1:]), **kwargs), first.lead)
    elif name in ("conv1d", "conv2d", "conv3d"):
        return _convolution(func, *args, **kwargs)
    elif name == "scaled_dot_product_attention":
        masks = {k: align(v, args[0]) if isinstance(v, Spread) else v for k, v in kwargs.items()}
        return func(*[align(v, args[0]) if isinstance(v, Spread) else v for v in args], **masks)
    if name in _PAIRWISE:
        return _pairwise(func, args, kwargs)
    if _alone(name, [*args, *kwargs.values()]):
        return _row_by_row(func, args, kwargs)
    raise MismatchError(
        f"{name} on a parameter that differs among the tasks of a batch is not known: "
        "run the tasks one after the other (randes_cli.Pool)"
    )


def _alone(name: str, values: Sequence[Any]) -> bool:
    """Whether parameters are computed with alone: no inputs, and nothing is written in place.

    Vectors are no inputs where they are joined to others (`torch.cat`).
    """
    inner = [v for value in values for v in (value if type(value) in (list, tuple) else [value])]
    others = [v for v in inner if isinstance(v, torch.Tensor) and not isinstance(v, Spread)]
    joined = name in ("cat", "concat") and all(v.dim() == 1 for v in others)
    joined = joined and all(len(v.shape) == 1 for v in inner if isinstance(v, Spread))
    return not name.endswith("_") and (joined or not others)


def _row_by_row(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Rows:
    """What an operation gives for each row's parameters."""
    first = next(v for v in _spreads([*args, *kwargs.values()]))
    made = []
    for place in range(first.data.shape[: first.lead].numel()):
        mine = [_of_row(value, place) for value in args]
        found = func(*mine, **{name: _of_row(value, place) for name, value in kwargs.items()})
        if not isinstance(found, torch.Tensor):
            raise MismatchError(f"{name_of(func)} of a parameter that differs among tasks")
        made.append(found)
    stacked = torch.stack(made)
    return rows_of(stacked.reshape(*first.data.shape[: first.lead], *made[0].shape), first.lead)


def _spreads(values: Sequence[Any]) -> Iterator[Spread]:
    for value in values:
        if isinstance(value, Spread):
            yield value
        elif type(value) in (list, tuple):
            yield from _spreads(value)


def _of_row(value: Any, place: int) -> Any:
    if isinstance(value, Spread):
        return value.data.flatten(0, value.lead - 1)[place]
    if type(value) in (list, tuple):
        return type(value)(_of_row(inner, place) for inner in value)
    return value


def name_of(func: Callable[..., Any]) -> str:
    """What an operation is called; the name of a property for what reads it.

    Known ones are in a table, because a compiler cannot follow ``func.__name__``.
    """
    name = _NAMES.get(func)
    if name is not None:
        return name
    if func.__name__ == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", "?"))
    return func.__name__


def _plain(value: Any) -> Any:
    return value.data if isinstance(value, Spread) else value


def _pairwise(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rows with a number or a tensor that all rows share: rows. With inputs: a plain tensor."""
    rows = [value for value in args if isinstance(value, Spread)]
    lead, dims = rows[0].lead, max(value.data.dim() - value.lead for value in rows)
    others = [v for v in args if isinstance(v, torch.Tensor) and not isinstance(v, Spread)]
    inputs = next((v for v in others if _has_rows(v, rows[0])), None)
    if inputs is None:
        shared = [_padded(v, dims) if isinstance(v, Spread) else v for v in args]
        return rows_of(func(*shared, **kwargs), lead)
    return func(*[align(v, inputs) if isinstance(v, Spread) else v for v in args], **kwargs)


def _has_rows(other: torch.Tensor, rows: Spread) -> bool:
    """Whether a tensor that meets `rows` has the batch as its first dimension."""
    dims = rows.data.dim() - rows.lead
    if other.dim() == 0 or other.dim() < dims:
        return False
    if other.dim() > dims:
        return True
    return bool(dims and rows.data.shape[rows.lead] == 1 and other.shape[0] != 1)


def _padded(rows: Spread, dims: int) -> torch.Tensor:
    data = rows.data
    for _ in range(dims - (data.dim() - rows.lead)):
        data = data.unsqueeze(rows.lead)
    return data


def align(rows: Spread, inputs: torch.Tensor) -> torch.Tensor:
    """As a plain tensor that meets inputs [n, …]: n is the number of rows, or a multiple."""
    data, lead = rows.data, rows.lead
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
    if not isinstance(weight, Spread) or weight.lead != 1 or len(input) % len(weight.data):
        raise MismatchError("a convolution by kernels that differ among tasks, not by rows")
    rows, times = len(input), len(input) // len(weight.data)
    kernels = weight.data.repeat_interleave(times, 0).flatten(0, 1)
    joined = input.reshape(1, -1, *input.shape[2:])
    made: torch.Tensor = func(joined, kernels, None, stride, padding, dilation, groups * rows)
    made = made.reshape(rows, -1, *made.shape[2:])
    if bias is None:
        return made
    if isinstance(bias, Spread):
        side = bias.data.reshape(*bias.data.shape, *[1] * (made.dim() - 2))
        return made + align(Spread(side, bias.lead), made)
    return made + torch.as_tensor(bias).reshape(-1, *[1] * (made.dim() - 2))


def _size(rows: Spread, dim: int | None = None) -> Any:
    return rows.shape if dim is None else rows.shape[dim]


def _sizes(rows: Spread, *sizes: Any) -> tuple[list[int], bool]:
    """Sizes as given, and whether the first of them is that of a batch."""
    given = list(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else list(sizes)
    shape, count = rows.shape, rows.data.shape[0]
    longer = len(given) > len(shape)
    batch = (longer or (len(shape) > 0 and shape[0] == 1)) and given[0] % count == 0
    return given, batch and given[0] != -1


def _expand(rows: Spread, *sizes: Any) -> Any:
    given, batch = _sizes(rows, *sizes)
    data = rows.data
    if not batch:
        return rows_of(data.expand(*data.shape[: rows.lead], *given), rows.lead)
    return align(rows, data.new_empty(given[0], *[0] * (len(given) - 1))).expand(*given)


def _repeat(rows: Spread, *sizes: Any) -> Any:
    given, batch = _sizes(rows, *sizes)
    if not batch:
        raise MismatchError("repeat of a parameter that differs among tasks, not by the batch")
    data = align(rows, rows.data.new_empty(given[0], *[0] * (len(given) - 1)))
    return data.repeat(1, *given[1:])


def _index(rows: Spread, item: Any) -> Any:
    items = item if isinstance(item, tuple) else (item,)
    return rows_of(rows.data[(slice(None),) * rows.lead + items], rows.lead)


def _reshape(rows: Spread, *sizes: Any) -> Rows:
    given, _ = _sizes(rows, *sizes) if sizes else ([], False)
    data = rows.data
    return rows_of(data.reshape(*data.shape[: rows.lead], *given), rows.lead)


def _permute(rows: Spread, *dims: Any) -> Rows:
    order = list(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else list(dims)
    data, lead = rows.data, rows.lead
    count = data.dim() - lead
    return rows_of(data.permute(*range(lead), *[lead + d % count for d in order]), lead)


def _axis(rows: Spread, dim: int, more: int = 0) -> int:
    return rows.lead + dim % (rows.data.dim() - rows.lead + more)


_PROPERTIES: dict[str, Callable[..., Any]] = {
    "shape": lambda rows: rows.shape,
    "size": _size,
    "dim": lambda rows: len(rows.shape),
    "ndim": lambda rows: len(rows.shape),
    "numel": lambda rows: rows.shape.numel(),
    "dtype": lambda rows: rows.data.dtype,
    "device": lambda rows: rows.data.device,
    "requires_grad": lambda rows: False,
    "is_floating_point": lambda rows: rows.data.is_floating_point(),
}
_SHAPES: dict[str, Callable[..., Any]] = {
    "expand": _expand,
    "repeat": _repeat,
    "__getitem__": _index,
    "view": _reshape,
    "reshape": _reshape,
    "reshape_as": lambda rows, other: _reshape(rows, other.shape),
    "permute": _permute,
    "chunk": lambda rows, count, dim=0: tuple(
        rows_of(part, rows.lead) for part in rows.data.chunk(count, _axis(rows, dim))
    ),
    "unsqueeze": lambda rows, dim: rows_of(rows.data.unsqueeze(_axis(rows, dim, 1)), rows.lead),
    "squeeze": lambda rows, dim: rows_of(rows.data.squeeze(_axis(rows, dim)), rows.lead),
    "transpose": lambda rows, one, two: rows_of(
        rows.data.transpose(_axis(rows, one), _axis(rows, two)), rows.lead
    ),
}


def _names() -> dict[Any, str]:
    known = {*_ELEMENTWISE, *_PAIRWISE, *_SHAPES, *_PROPERTIES, "scaled_dot_product_attention"}
    made: dict[Any, str] = {}
    for home in (torch.Tensor, torch, torch.nn.functional):
        for name in known | {"conv1d", "conv2d", "conv3d"}:
            found = getattr(home, name, None)
            if inspect.isdatadescriptor(found):
                made[getattr(found, "__get__")] = name  # noqa: B009
            elif callable(found):
                made[found] = name
    return made


_NAMES = _names()
