"""Products of inputs and parameters that each row of a batch has its own of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.parameters.spread import Spread, align, data_of, met


def _refused(what: str) -> MismatchError:
    return MismatchError(f"{what}; run the tasks one after the other (randes_cli.Pool)")


def _attend(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    masks = {k: met(v, args[0]) for k, v in kwargs.items()}
    return func(*[met(v, args[0]) for v in args], **masks)


def _matmul(func: Callable[..., Any], input: torch.Tensor, other: Spread) -> Any:
    if other.lead != 1 or len(other.shape) < 2 or input.dim() < 3:
        raise _refused("a product with a matrix that differs among tasks, not by rows")
    if input.dim() == 3 and len(other.shape) == 3 and other.shape[0] > 1:
        return _bmm(func, input, other)
    return func(input, align(other, input))


def _matmul_before(func: Callable[..., Any], matrix: Spread, input: torch.Tensor) -> torch.Tensor:
    """A product whose first factor is a matrix of each row's own."""
    if matrix.lead != 1 or len(matrix.shape) < 2 or input.dim() < 3:
        raise _refused("a product with a matrix that differs among tasks, not by rows")
    made: torch.Tensor = func(align(matrix, input), input)
    return made


def _cast(func: Callable[..., Any], input: torch.Tensor, *like: Any, **kwargs: Any) -> Any:
    return func(input, *map(data_of, like), **{name: data_of(v) for name, v in kwargs.items()})


def _linear(
    func: Callable[..., Any], input: torch.Tensor, weight: Any, bias: Any = None
) -> torch.Tensor:
    """Each row by its own matrix: one batched product."""
    if not isinstance(weight, Spread):
        plain: torch.Tensor = func(input, weight)
        return plain + align(bias, plain)
    if len(weight.shape) == 1:  # what it gives has no last dimension
        made = (input * align(weight, input)).sum(-1)
        return made if bias is None else made + met(bias, made)
    data, lead = weight.data, weight.lead
    count = data.shape[:lead].numel()
    tokens = lead == 2 and tuple(input.shape[:2]) == tuple(data.shape[:2])
    if not tokens and len(input) % count:
        raise _refused("a linear layer whose matrix differs among tasks, not by rows")
    matrices = data.reshape(count, *data.shape[lead:])
    made = torch.bmm(input.reshape(count, -1, input.shape[-1]), matrices.transpose(1, 2))
    made = made.reshape(*input.shape[:-1], -1)
    return made if bias is None else made + met(bias, made)


def _convolution(
    func: Callable[..., Any],
    input: torch.Tensor,
    weight: Any,
    bias: Any = None,
    *more: Any,
    groups: int = 1,
    **named: Any,
) -> torch.Tensor:
    """Each row by its own kernel: one convolution with as many times more groups.

    These are the fourth of what comes after the bias, transposed or not.
    """
    if not isinstance(weight, Spread) or weight.lead != 1 or len(input) % len(weight.data):
        raise _refused("a convolution by kernels that differ among tasks, not by rows")
    rows, times = len(input), len(input) // len(weight.data)
    kernels = weight.data.repeat_interleave(times, 0).flatten(0, 1)
    if len(more) > 3:
        more = (*more[:3], more[3] * rows, *more[4:])
    else:
        named["groups"] = groups * rows
    found = func(input.reshape(1, -1, *input.shape[2:]), kernels, None, *more, **named)
    made: torch.Tensor = found.reshape(rows, -1, *found.shape[2:])
    return made if bias is None else made + met(bias, made, made.dim() - 2)


def _bmm(func: Callable[..., Any], input: torch.Tensor, other: Spread) -> torch.Tensor:
    """torch.bmm by groups that all rows have: the second dimension is of rows and their tokens."""
    data = other.data.flatten(0, other.lead - 1)
    rows, tokens = len(data), input.shape[1]
    if data.dim() != 4 or input.shape[0] != data.shape[1] or tokens % rows:
        raise _refused("bmm of inputs that do not come by rows with matrices of a task's own")
    mine = input.reshape(len(input), rows, tokens // rows, -1).transpose(0, 1)
    return torch.matmul(mine, data).transpose(0, 1).flatten(1, 2)


def _baddbmm(
    func: Callable[..., Any], bias: Any, input: torch.Tensor, other: Any, **scales: Any
) -> torch.Tensor:
    """torch.baddbmm of a bias [groups, 1, width] and matrices as `_bmm` takes them."""
    if scales or not isinstance(other, Spread) or isinstance(input, Spread):
        raise _refused("baddbmm with scales, or of what does not differ among tasks")
    made = _bmm(func, input, other)
    if not isinstance(bias, Spread):
        return made + torch.as_tensor(bias)
    data = bias.data.flatten(0, bias.lead - 1)
    if data.dim() != 4 or data.shape[2] != 1:
        raise _refused("baddbmm of a bias that differs among the tokens of a row")
    rows = made.reshape(len(made), len(data), -1, made.shape[-1])
    return (rows + data.transpose(0, 1)).flatten(1, 2)


def _einsum(func: Callable[..., Any], equation: str, *given: Any) -> torch.Tensor:
    """torch.einsum of inputs, whose first letter is b as people call the batch, and parameters.

    What has another first letter may be what all rows share, as sinusoids.
    """
    operands = (
        list(given[0]) if len(given) == 1 and type(given[0]) in (list, tuple) else list(given)
    )
    letters, _, out = equation.replace(" ", "").partition("->")
    names = letters.split(",")
    inputs = [(n, v) for n, v in zip(names, operands, strict=True) if not isinstance(v, Spread)]
    spreads = [(n, v) for n, v in zip(names, operands, strict=True) if isinstance(v, Spread)]
    batch = "b"
    plain = out[:1] == batch and bool(inputs) and all(n[:1] == batch for n, _ in inputs)
    if not plain or any(batch in n or v.lead != 1 for n, v in spreads):
        raise _refused(f"einsum {equation} with a parameter that differs among tasks")
    made = []
    for name, value in zip(names, operands, strict=True):
        if isinstance(value, Spread):
            count = len(inputs[0][1])
            if count % len(value.data):
                raise _refused(f"einsum {equation} of {count} lines, not by rows")
            made.append((batch + name, value.data.repeat_interleave(count // len(value.data), 0)))
        else:
            made.append((name, value))
    answer: torch.Tensor = torch.einsum(
        ",".join(name for name, _ in made) + "->" + out, *(value for _, value in made)
    )
    return answer


def _set(func: Callable[..., Any], input: torch.Tensor, item: Any, value: Spread) -> None:
    """input[mask] = a vector of each row's task."""
    masks = isinstance(item, torch.Tensor) and item.dtype == torch.bool
    if not masks or item.shape != input.shape[: item.dim()] or len(value.shape) > 1:
        raise _refused("a parameter that differs among tasks is written to a part of inputs")
    func(input, item, align(value, input).expand_as(input)[item])


#: Operations on inputs, of whose other arguments some are parameters.
ON_INPUTS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "type_as": _cast,
    "to": _cast,
    "scaled_dot_product_attention": _attend,
    "matmul": _matmul,
    "bmm": _bmm,
    "__setitem__": _set,
    "einsum": _einsum,
    **{f"conv{kind}{n}d": _convolution for kind in ("", "_transpose") for n in (1, 2, 3)},
}
#: Those whose first argument may be a parameter.
ON_PARAMETERS: dict[str, Callable[..., Any]] = {"baddbmm": _baddbmm, "matmul": _matmul_before}
