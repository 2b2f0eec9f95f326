"""Shapes of a small parameter that each row of a batch has its own of: asked for, and changed.

The rows are hidden before its first dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from randes_cli.errors import MismatchError
from randes_cli.live.parameters.folded import Folds
from randes_cli.live.parameters.spread import Spread, align


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
        return Spread(data.expand(*data.shape[: rows.lead], *given), rows.lead)
    met = data.new_empty(()).expand(*(max(size, 0) for size in given))
    return align(rows, met).expand(*given)


def _repeat(rows: Spread, *sizes: Any) -> Any:
    given, batch = _sizes(rows, *sizes)
    if _folds(rows, given):
        return Folds(rows, given[0])
    if not batch:
        raise MismatchError("repeat of a parameter that differs among tasks, not by the batch")
    data = align(rows, rows.data.new_empty(given[0], *[0] * (len(given) - 1)))
    return data.repeat(1, *given[1:])


def _folds(rows: Spread, times: list[int]) -> bool:
    """Whether the batch may be what is put before the first of three dimensions, in one with it."""
    first, *others = times
    if len(times) != 3 or len(rows.shape) != 3 or rows.lead != 1 or rows.shape[0] == 1:
        return False
    return first >= 1 and first % rows.data.shape[0] == 0 and all(time == 1 for time in others)


def _index(rows: Spread, item: Any) -> Any:
    items = item if isinstance(item, tuple) else (item,)
    return Spread(rows.data[(slice(None),) * rows.lead + items], rows.lead)


def _reshape(rows: Spread, *sizes: Any) -> Spread:
    given, _ = _sizes(rows, *sizes) if sizes else ([], False)
    data = rows.data
    return Spread(data.reshape(*data.shape[: rows.lead], *given), rows.lead)


def _permute(rows: Spread, *dims: Any) -> Spread:
    order = list(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else list(dims)
    data, lead = rows.data, rows.lead
    count = data.dim() - lead
    return Spread(data.permute(*range(lead), *[lead + d % count for d in order]), lead)


def _squeeze(rows: Spread, dim: int | None = None) -> Spread:
    if dim is not None:
        return Spread(rows.data.squeeze(_axis(rows, dim)), rows.lead)
    return _reshape(rows, [size for size in rows.shape if size != 1])


def _axis(rows: Spread, dim: int, more: int = 0) -> int:
    return rows.lead + dim % (rows.data.dim() - rows.lead + more)


PROPERTIES: dict[str, Callable[..., Any]] = {
    "shape": lambda rows: rows.shape,
    "size": _size,
    "dim": lambda rows: len(rows.shape),
    "ndim": lambda rows: len(rows.shape),
    "numel": lambda rows: rows.shape.numel(),
    "dtype": lambda rows: rows.data.dtype,
    "device": lambda rows: rows.data.device,
    "requires_grad": lambda rows: False,
    "is_floating_point": lambda rows: rows.data.is_floating_point(),
    "is_nested": lambda rows: False,
}
SHAPES: dict[str, Callable[..., Any]] = {
    "expand": _expand,
    "repeat": _repeat,
    "__getitem__": _index,
    "view": _reshape,
    "reshape": _reshape,
    "expand_as": lambda rows, other: _expand(rows, *other.shape),
    "reshape_as": lambda rows, other: _reshape(rows, other.shape),
    "permute": _permute,
    "chunk": lambda rows, count, dim=0: tuple(
        Spread(part, rows.lead) for part in rows.data.chunk(count, _axis(rows, dim))
    ),
    "unsqueeze": lambda rows, dim: Spread(rows.data.unsqueeze(_axis(rows, dim, 1)), rows.lead),
    "squeeze": _squeeze,
    "split": lambda rows, size, dim=0: tuple(
        Spread(part, rows.lead) for part in rows.data.split(size, _axis(rows, dim))
    ),
    "transpose": lambda rows, one, two: Spread(
        rows.data.transpose(_axis(rows, one), _axis(rows, two)), rows.lead
    ),
}
