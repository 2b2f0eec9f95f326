"""Random streams, signs and shuffles, from section 4 of docs/bank-format.md alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod

import numpy as np

from tests.independent.container import matrix, need
from tests.independent.numbers import Array


def stream(kind: str, seed: int, name: str, size: int) -> bytes:
    """Section 4."""
    return hashlib.shake_256(f"randes/1|{kind}|{seed}|{name}".encode()).digest(size)


def stream_signs(seed: int, name: str, count: int) -> Array:
    """±1 for each bit of the stream."""
    data = np.frombuffer(stream("signs", seed, name, (count + 7) // 8), np.uint8)
    bits = np.unpackbits(data, bitorder="little")[:count]
    made: Array = np.where(bits == 1, np.float32(-1), np.float32(1))
    return made


def view(shape: tuple[int, ...]) -> tuple[int, int]:
    """R × C of scales and two-sided signs: the cut with the least R + C, then fewest trailing."""
    if len(shape) < 2:
        return 1, prod(shape)
    cuts = [(prod(shape[:at]), prod(shape[at:])) for at in range(len(shape) - 1, 0, -1)]
    return min(cuts, key=sum)


def signs(kind: str, seed: int, name: str, shape: tuple[int, ...]) -> Array:
    """Of every element, in the order stored."""
    rows, columns = matrix(shape)
    if kind == "none":
        return np.ones(rows * columns, np.float32)
    if kind == "column":
        return np.tile(stream_signs(seed, name, columns), rows)
    if kind == "two-sided":
        high, wide = view(shape)
        both = stream_signs(seed, name, high + wide)
        return np.outer(both[:high], both[high:]).reshape(-1)
    need(kind == "hankel", f"signs {kind}")
    line = stream_signs(seed, name, max(rows + columns - 1, 0))
    return np.asarray(line[np.add.outer(np.arange(rows), np.arange(columns))].reshape(-1))


def permutation(kind: str, seed: int, index: int, layer_type: str, layers: int) -> list[int]:
    """σ of section 4."""
    if kind == "shift":
        return [(position - index) % layers for position in range(layers)]
    need(kind == "random", f"shuffle {kind}")
    order, data = list(range(layers)), stream("shuffle", seed, layer_type, 8 * layers)
    for number, last in enumerate(range(layers - 1, 0, -1)):
        word = int.from_bytes(data[8 * number : 8 * number + 8], "little")
        order[last], order[word % (last + 1)] = order[word % (last + 1)], order[last]
    return order


def layer(name: str, *, any_script: bool) -> tuple[str, tuple[int, ...]]:
    """(layer type, numbers) of a name."""
    parts = name.split(".")
    number = [part.isdecimal() and (any_script or part.isascii()) for part in parts]
    return (
        ".".join("*" if yes else part for part, yes in zip(parts, number, strict=True)),
        tuple(int(part) for part, yes in zip(parts, number, strict=True) if yes),
    )


def units(
    shapes: Mapping[str, tuple[int, ...]], every: int, *, any_script: bool
) -> dict[str, tuple[str, list[str]]]:
    """Of each tensor that is transformed, the layer type that names its shuffle, and its layers."""
    types: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for name, shape in shapes.items():
        kind, _ = layer(name, any_script=any_script)
        types.setdefault(kind, {}).setdefault(shape, []).append(name)
    made = {}
    for kind, found in types.items():
        for shape, names in found.items():
            names.sort(key=lambda name: (layer(name, any_script=any_script)[1], name))
            taken = names[::every]
            label = kind + "|" + "x".join(map(str, shape)) if len(found) > 1 else kind
            made.update(dict.fromkeys(taken, (label, taken)))
    return made
