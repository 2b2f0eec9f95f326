"""Layer shuffles: the permutation part of a transform (paper 4.3, C.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from randes_cli.core.signs import random_bytes
from randes_cli.specs import Shuffle, TensorInfo

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")
#: With decimal digits of every script, which numbered the layers of banks of version 1.
_ANY_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def layer_type(name: str, *, any_digits: bool = False) -> str:
    """`name` with ``*`` for every layer number: ``h.3.attn.weight`` → ``h.*.attn.weight``."""
    return (_ANY_NUMBER if any_digits else _NUMBER).sub("*", name)


def layer_types(names: Sequence[str], *, any_digits: bool = False) -> list[str]:
    """`layer_type` of many names, at one look."""
    pattern, between = (_ANY_NUMBER if any_digits else _NUMBER), ".\n."
    whole = between.join(names)
    if whole.count("\n") != len(names) - 1:  # a name has one of its own
        return [layer_type(name, any_digits=any_digits) for name in names]
    return pattern.sub("*", whole).split(between)


def layer_numbers(name: str, *, any_digits: bool = False) -> tuple[int, ...]:
    """The layer numbers of a name, outermost first: ``h.3.experts.12.w1`` → (3, 12)."""
    return tuple(map(int, (_ANY_NUMBER if any_digits else _NUMBER).findall(name)))


def group_by_type(tensors: Iterable[TensorInfo]) -> dict[str, list[str]]:
    """`group_shapes` of tensors."""
    return group_shapes({tensor.name: tensor.shape for tensor in tensors})


def group_shapes(
    shapes: Mapping[str, tuple[int, ...]], *, any_digits: bool = False, ordered: bool = True
) -> dict[str, list[str]]:
    """Names of one type and one shape together, in the order of their layer numbers (or not).

    The key is the layer type; where one type has several shapes, ``<type>|<rows>x<columns>…``
    tells them apart.
    """
    by_type: dict[str, dict[tuple[int, ...], list[str]]] = {}
    types = layer_types([*shapes], any_digits=any_digits)
    for kind, (name, shape) in zip(types, shapes.items(), strict=True):
        by_type.setdefault(kind, {}).setdefault(shape, []).append(name)
    groups = {}
    for kind, found in by_type.items():
        for shape, names in found.items():
            key = kind if len(found) == 1 else f"{kind}|{'x'.join(map(str, shape))}"
            if ordered:
                names.sort(key=lambda name: (layer_numbers(name, any_digits=any_digits), name))
            groups[key] = names
    return groups


def layer_order(
    shuffle: Shuffle, *, seed: int, index: int, layer_kind: str, layers: int
) -> list[int]:
    """σ: position p of the superposition takes the task's layer σ[p] (paper equation 7).

    ``random``: Fisher–Yates from the last position down, the swap partner of position i being
    a 64-bit little-endian word of the stream ``shuffle|<seed>|<layer type>`` modulo i + 1.
    ``shift``: σ[p] = (p − index) mod layers, the task's index places deeper with wrap-around.
    """
    order = list(range(layers))
    if shuffle is Shuffle.shift:
        return [(position - index) % layers for position in order]
    if shuffle is Shuffle.random:
        stream = random_bytes("shuffle", seed, layer_kind, 8 * max(0, layers - 1))
        for step, i in enumerate(range(layers - 1, 0, -1)):
            j = int.from_bytes(stream[8 * step : 8 * step + 8], "little") % (i + 1)
            order[i], order[j] = order[j], order[i]
    return order
