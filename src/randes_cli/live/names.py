"""Which tensors of a checkpoint each parameter of a module is made of.

Mostly one, under the same name. transformers renames while it loads, puts the experts of a
layer into one tensor, and the like; it is asked, with small numbered tensors in place of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from randes_cli.errors import MismatchError
from randes_cli.live.adapters import plain_state

#: Sizes that stand for those of real tensors while a conversion is followed.
_SMALL = (2, 3, 5, 7, 11, 13, 17, 19, 23)


@dataclass(frozen=True, slots=True)
class Part:
    """Where a tensor of a checkpoint lies in a parameter.

    Attributes:
        name: the tensor's.
        place: the slice of the parameter along each of its dimensions (of an integer: one);
            empty where it is the whole parameter.
        turned: whether its two dimensions are exchanged there.
    """

    name: str
    place: tuple[int | slice, ...] = ()
    turned: bool = False

    def put(self, tensor: torch.Tensor, parameter: torch.Tensor) -> None:
        """Copy the tensor to its place."""
        target = parameter[self.place] if self.place else parameter
        target.copy_(tensor.t() if self.turned else tensor)


Parts = tuple[Part, ...]


def parameter_parts(
    module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Parts]:
    """By parameter or buffer of `module` (state dict names): the tensors of `shapes` in it.

    Raises MismatchError where a library's conversion is of a kind that cannot be followed.
    """
    fix: Any = getattr(module, "_fix_state_dict_keys_on_load", None)
    if fix is not None:  # diffusers
        renamed = {name: name for name in shapes}
        fix(renamed)
        return {new: (Part(old),) for new, old in renamed.items()}
    if hasattr(module, "base_model_prefix"):  # transformers
        return _converted(module, shapes)
    return {name: (Part(name),) for name in shapes}


def _converted(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Parts]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    known = plain_state(module)
    steps = get_model_conversion_mapping(module)
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    by_pattern = {key: step for step in converters for key in step.source_patterns}
    made: dict[str, Parts] = {}
    gathered: dict[str, tuple[Any, list[tuple[str, str]]]] = {}
    for name in _natural(shapes):
        new, pattern = rename_source_key(
            name, renamings, converters, module.base_model_prefix, known
        )
        if new not in known and name in known:
            new, pattern = rename_source_key(name, [], [], module.base_model_prefix, known)
        if pattern is None:
            made[new] = (Part(name),)
        else:
            step = gathered.setdefault(new, (deepcopy(by_pattern[pattern]), []))
            step[1].append((name, pattern))
    for first, (step, sources) in gathered.items():
        made.update(_follow(module, first, step, sources, shapes))
    return made


def _natural(names: Iterable[str]) -> list[str]:
    from transformers.core_model_loading import dot_natural_key

    return sorted(names, key=dot_natural_key)


def _follow(
    module: Any,
    first: str,
    step: Any,
    sources: list[tuple[str, str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Parts]:
    """What a conversion makes of its sources, found with small tensors that number them."""
    sizes = sorted({size for name, _ in sources for size in shapes[name]})
    if len(sizes) > len(_SMALL):
        raise _unknown(first)
    small = dict(zip(sizes, _SMALL, strict=False))
    back = {value: key for key, value in small.items()}
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
        made[target] = tuple(
            _locate(tensor, number, name, shapes[name], small, back, first)
            for number, (name, _) in enumerate(sources)
            if bool((tensor.long() // 4096 == number).any())
        )
    return made


def _numbered(number: int, shape: list[int]) -> torch.Tensor:
    """A tensor of which every element says whose it is, and where in it: 64 rows, 64 columns."""
    rows, columns = (shape[0], shape[-1]) if len(shape) == 2 else (1, shape[-1])
    if len(shape) > 2:
        return torch.full(shape, number * 4096)
    places = 64 * torch.arange(rows)[:, None] + torch.arange(columns)
    return (number * 4096 + places).reshape(shape)


def _locate(
    tensor: torch.Tensor,
    number: int,
    name: str,
    shape: tuple[int, ...],
    small: Mapping[int, int],
    back: Mapping[int, int],
    first: str,
) -> Part:
    """The box of a source in what was converted, in the sizes of the real tensors."""
    mine = tensor.long() // 4096 == number
    where = mine.nonzero()
    low, high = where.min(0).values.tolist(), (where.max(0).values + 1).tolist()
    box = tensor[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].squeeze()
    wanted = _numbered(number, [small[size] for size in shape]).squeeze()
    turned = box.shape != wanted.shape or not torch.equal(box.long(), wanted)
    if turned and (wanted.dim() != 2 or not torch.equal(box.long(), wanted.t())):
        raise _unknown(first)
    real = list(reversed(shape) if turned else shape)
    place: list[int | slice] = []
    extra = tensor.dim() - len(shape)
    for axis, (a, b) in enumerate(zip(low, high, strict=True)):
        if axis < extra:
            if b - a != 1:
                raise _unknown(first)
            place.append(a)
        else:
            size, width = real[axis - extra], b - a
            if back[width] != size or a % width:
                raise _unknown(first)
            place.append(slice(a // width * size, (a // width + 1) * size))
    return Part(name, tuple(place), turned)


def _unknown(name: str) -> MismatchError:
    return MismatchError(
        f"{name}: its library makes it from several tensors in a way that cannot be followed here; "
        "fill the model with from_bank, one task at a time"
    )
