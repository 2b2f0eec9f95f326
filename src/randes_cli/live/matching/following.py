"""What transformers makes of the tensors of a checkpoint while it loads, found by asking it.

It is given small numbered tensors in place of weights. Known are those that it puts together,
along any axis or as experts, turned or not, and those whose rows it deals out to parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import prod
from typing import Any, NamedTuple

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.weights.parts import Part, Parts

#: Sizes that stand for those of real tensors while a conversion is followed. Halves, and pairs that
#: are dealt out in turns, show in each: of two elements they would lie as before.
_SMALL = (4, 6, 10, 12, 14, 18, 20, 22, 26)
#: Elements of a numbered tensor at most.
_MOST = 4096


class _Box(NamedTuple):
    """Where a numbered tensor was found, and the sizes of the real one as it lies there.

    `extra` dimensions come before its own.
    """

    name: str
    extra: int
    low: Sequence[int]
    high: Sequence[int]
    real: Sequence[int]
    turned: bool


def follow(
    module: Any,
    first: str,
    step: Any,
    sources: Sequence[tuple[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Parts]:
    """The parts of each parameter that a conversion makes of its sources: names and patterns.

    `first` is the parameter that it is named after. Raises MismatchError.
    """
    dealt = None
    if len(sources) == 1 and _left(module, first, step, shapes[sources[0][0]]):
        return {first: (Part(sources[0][0]),)}
    if len(sources) == 1:
        dealt = _dealt(module, first, deepcopy(step), sources[0], shapes[sources[0][0]])
    return dealt or _joined(module, first, step, sources, shapes)


def _left(module: Any, first: str, step: Any, shape: tuple[int, ...]) -> bool:
    """Whether all that is done is to exchange dimensions, of a tensor that lies right as it is."""
    looks = all(getattr(one, "check_dims", False) for one in step.operations)
    return looks and tuple(module.get_parameter(first).shape) == tuple(shape)


def _dealt(
    module: Any, first: str, step: Any, source: tuple[str, str], shape: tuple[int, ...]
) -> dict[str, Parts] | None:
    """Rows of one tensor that are dealt out to parameters; None for what is no such conversion."""
    name, pattern = source
    inner = _SMALL[: len(shape) - 1]
    each = torch.arange(torch.Size(inner).numel()).reshape(inner)
    numbers = torch.arange(shape[0]).reshape(-1, *[1] * len(inner)) * each.numel() + each
    step.add_tensor(first, name, pattern, numbers)
    try:
        found = step.convert(first, model=module, config=module.config)
    except Exception:
        return None
    made: dict[str, Parts] = {}
    for target, value in found.items():
        given = value[0] if isinstance(value, list) else value
        tensor = given.long()  # some are cast to a dtype of weights
        if not torch.equal(tensor.to(given.dtype), given):
            return None
        if tensor.shape[1:] != inner or not len(tensor):
            return None
        rows = tensor.reshape(len(tensor), -1)[:, 0] // each.numel()
        if not torch.equal(tensor, rows.reshape(-1, *[1] * len(inner)) * each.numel() + each):
            return None
        made[target] = (_rows(name, rows.tolist(), shape[0]),)
    return made


def _rows(name: str, rows: list[int], length: int) -> Part:
    run = range(rows[0], rows[0] + len(rows))
    if rows == list(range(length)):
        return Part(name)
    return Part(name, rows=run if rows == list(run) else tuple(rows), length=length)


def _joined(
    module: Any,
    first: str,
    step: Any,
    sources: Sequence[tuple[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Parts]:
    """Where each tensor lies whole."""
    sizes = sorted({size for name, _ in sources for size in shapes[name]})
    if len(sizes) > len(_SMALL):
        raise _unknown(first)
    small = dict(zip(sizes, _SMALL, strict=False))
    if any(prod(small[size] for size in shapes[name]) > _MOST for name, _ in sources):
        raise _unknown(first)
    for number, (name, pattern) in enumerate(sources):
        shape = [small[size] for size in shapes[name]]
        step.add_tensor(first, name, pattern, _numbered(number, shape))
    try:
        found = step.convert(first, model=module, config=module.config)
    except Exception as error:
        raise _unknown(first) from error
    made = {}
    for target, value in found.items():
        tensor = value[0] if isinstance(value, list) else value
        boxes = [
            _box(tensor, number, name, shapes[name], small, first)
            for number, (name, _) in enumerate(sources)
            if bool((tensor.long() // _MOST == number).any())
        ]
        made[target] = tuple(_placed(box, boxes, first) for box in boxes)
    return made


def _numbered(number: int, shape: list[int]) -> torch.Tensor:
    """A tensor of which every element says whose it is, and where in it."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape) + number * _MOST


def _box(
    tensor: torch.Tensor,
    number: int,
    name: str,
    shape: tuple[int, ...],
    small: Mapping[int, int],
    first: str,
) -> _Box:
    """Where a source lies in what was converted."""
    mine = tensor.long() // _MOST == number
    where = mine.nonzero()
    low, high = where.min(0).values.tolist(), (where.max(0).values + 1).tolist()
    box = tensor[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].squeeze()
    wanted = _numbered(number, [small[size] for size in shape]).squeeze()
    turned = box.shape != wanted.shape or not torch.equal(box.long(), wanted)
    if turned and (wanted.dim() < 2 or not torch.equal(box.long(), wanted.mT)):
        raise _unknown(first)
    real = [*shape[:-2], shape[-1], shape[-2]] if turned else list(shape)
    extra = tensor.dim() - len(shape)
    widths = [b - a for a, b in zip(low, high, strict=True)]
    if widths != [1] * extra + [small[size] for size in real]:
        raise _unknown(first)
    return _Box(name, extra, low, high, [1] * extra + real, turned)


def _placed(box: _Box, boxes: Sequence[_Box], first: str) -> Part:
    """The place of a tensor, in the sizes of the real ones."""
    place: list[int | slice] = []
    for axis, low in enumerate(box.low):
        spans = sorted({(b.low[axis], b.high[axis], b.real[axis]) for b in boxes})
        ends = [0, *(high for _, high, _ in spans)]
        if [start for start, _, _ in spans] != ends[:-1]:
            raise _unknown(first)
        start = sum(size for at, _, size in spans if at < low)
        place.append(start if axis < box.extra else slice(start, start + box.real[axis]))
    return Part(box.name, tuple(place), box.turned)


def _unknown(name: str) -> MismatchError:
    return MismatchError(
        f"{name}: its library makes it of what it loads in a way that cannot be followed here; "
        "fill the model with from_bank, one task at a time"
    )
