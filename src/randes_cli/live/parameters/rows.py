"""A small parameter of which each row of the batch has its own, and what may be done with it.

It looks as the parameter does, its rows hidden before its first dimension. What is not known
here is an error: an operation that took the rows for something else would answer wrongly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.parameters.contractions import ON_INPUTS, ON_PARAMETERS
from randes_cli.live.parameters.folded import Folds, folded
from randes_cli.live.parameters.intercepted import Intercepted
from randes_cli.live.parameters.row_shapes import PROPERTIES, SHAPES
from randes_cli.live.parameters.spread import Spread, data_of, met

#: Operations on single elements.
_ELEMENTWISE = frozenset(
    (
        *("abs", "exp", "neg", "sigmoid", "tanh", "relu", "gelu", "silu", "softplus", "sqrt"),
        *("rsqrt", "log", "log1p", "expm1", "clamp", "clamp_min", "clamp_max", "square"),
        *("reciprocal", "sin", "cos", "erf", "__neg__"),
        *("to", "type", "type_as", "float", "half", "bfloat16", "double"),
        *("contiguous", "clone", "detach", "zero_"),
    )
)
#: Operations on two tensors that are stretched to one shape.
_PAIRWISE = frozenset(
    (
        *("add", "sub", "rsub", "mul", "multiply", "div", "true_divide", "pow"),
        *("maximum", "minimum", "where", "add_", "sub_", "mul_", "div_"),
        *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__pow__"),
        *("__rpow__", "__truediv__", "__rtruediv__", "__iadd__", "__isub__", "__imul__"),
    )
)


class Rows(Intercepted):
    """A `Spread` that passes for one row's parameter, where a model computes with it."""

    spread: Spread

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        known = {name: spread_of(value) for name, value in kwargs.items()}
        return apply(func, [spread_of(value) for value in args], known)


def rows_of(data: torch.Tensor, lead: int) -> Rows:
    """Hide the `lead` first dimensions of a tensor."""
    made = data.as_subclass(Rows)
    # Kept beside it, since a compiler cannot follow the way back from this class.
    made.spread = Spread(data, lead)
    return made


def _hidden(made: Any) -> Any:
    """What was made of a `Spread`, as models see it."""
    if isinstance(made, Spread):
        return rows_of(*made)
    if isinstance(made, Folds):
        return folded(made)
    return tuple(map(_hidden, made)) if type(made) is tuple else made


def spread_of(value: Any) -> Any:
    """`Rows` as what `apply` takes."""
    if type(value) in (list, tuple):
        return type(value)(spread_of(inner) for inner in value)
    return value.spread if isinstance(value, Rows) else value


def apply(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What `func` gives where some arguments are a `Spread`: `Rows` again, or a plain tensor.

    Raises MismatchError where that is not known.
    """
    name, first = name_of(func), args[0] if args else None
    if isinstance(first, Spread):
        known = PROPERTIES.get(name) or SHAPES.get(name)
        if known is not None:
            return _hidden(known(first, *args[1:], **kwargs))
        if name in _ELEMENTWISE or (name == "linear" and not list(_spreads(args[1:]))):
            return rows_of(func(first.data, *map(data_of, args[1:]), **kwargs), first.lead)
    elif name in ON_INPUTS and not _alone(name, [*args, *kwargs.values()]):
        return ON_INPUTS[name](func, *args, **kwargs)
    if name in _PAIRWISE:
        return _pairwise(func, args, kwargs)
    if name in ON_PARAMETERS and not _alone(name, args):
        return ON_PARAMETERS[name](func, *args, **kwargs)
    if _alone(name, [*args, *kwargs.values()]):
        return _row_by_row(func, args, kwargs)
    raise MismatchError(
        f"{name} on a parameter that differs among the tasks of a batch is not known: "
        "run the tasks one after the other (randes_cli.Pool)"
    )


def _alone(name: str, values: Sequence[Any]) -> bool:
    """Whether parameters are computed with alone: no inputs, and nothing is written in place.

    What a parameter is joined to (`torch.cat`) is no input: it has as many dimensions as one row's
    parameter, and is as long but in one of them, whatever the batch.
    """
    inner = [v for value in values for v in (value if type(value) in (list, tuple) else [value])]
    others = [v for v in inner if isinstance(v, torch.Tensor) and v.dim()]
    joined = name in ("cat", "concat") and len({len(v.shape) for v in _tensors(inner)}) == 1
    return not name.endswith("_") and (joined or not others)


def _tensors(values: Sequence[Any]) -> Iterator[Any]:
    return (v for v in values if isinstance(v, torch.Tensor | Spread))


def _row_by_row(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What an operation gives for each row's parameters."""
    first = next(v for v in _spreads([*args, *kwargs.values()]))
    made = []
    for place in range(first.data.shape[: first.lead].numel()):
        mine = [_of_row(value, place) for value in args]
        found = func(*mine, **{name: _of_row(value, place) for name, value in kwargs.items()})
        several = found if type(found) in (list, tuple) else (found,)
        if not all(isinstance(value, torch.Tensor) for value in several):
            raise MismatchError(f"{name_of(func)} of a parameter that differs among tasks")
        made.append(several)
    stacked = [torch.stack(parts) for parts in zip(*made, strict=True)]
    leading = first.data.shape[: first.lead]
    rows = tuple(rows_of(s.reshape(*leading, *s.shape[1:]), first.lead) for s in stacked)
    return rows if several is found else rows[0]


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


def _pairwise(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rows with a number or a tensor that all rows share: rows. With inputs: a plain tensor."""
    args = [_dense(value) for value in args]
    rows = [value for value in args if isinstance(value, Spread)]
    if len({value.lead for value in rows}) > 1:
        raise MismatchError("a table of positions meets a parameter that each token has its own of")
    lead, dims = rows[0].lead, max(value.data.dim() - value.lead for value in rows)
    others = [v for v in args if isinstance(v, torch.Tensor) and not isinstance(v, Spread)]
    inputs = next((v for v in others if _has_rows(v, rows[0])), None)
    if inputs is None:
        shared = [_padded(v, dims) if isinstance(v, Spread) else v for v in args]
        return rows_of(func(*shared, **kwargs), lead)
    return func(*[met(v, inputs) for v in args], **kwargs)


def _dense(value: Any) -> Any:
    """A sparse tensor (SHiRA's) as one that meets rows."""
    sparse = type(value) is torch.Tensor and value.layout != torch.strided
    return value.to_dense() if sparse else value


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


def _names() -> dict[Any, str]:
    known = {*_ELEMENTWISE, *_PAIRWISE, *SHAPES, *PROPERTIES, *ON_INPUTS}
    made: dict[Any, str] = {}
    for home in (torch.Tensor, torch, torch.nn.functional):
        for name in known:
            found = getattr(home, name, None)
            if inspect.isdatadescriptor(found):
                made[getattr(found, "__get__")] = name  # noqa: B009
            elif callable(found):
                made[found] = name
    return made


_NAMES = _names()
