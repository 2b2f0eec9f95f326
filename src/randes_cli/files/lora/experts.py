"""Updates of a module's own parameters (`target_parameters`), as fused experts have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from randes_cli.errors import CheckpointError
from randes_cli.files.lora.view import Pair, Update, View

#: What the fused weights of experts are called one by one (v5 and v4 of transformers).
_UNFUSED = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}


def add_parameters(
    view: View, made: dict[str, list[Update]], owner: str, pairs: Sequence[Pair]
) -> None:
    """Updates of a module's own parameters (`target_parameters`), as fused experts have.

    PEFT wraps the module once a parameter, in the order in which the module has them, and
    the last wrapping comes first in names.
    """
    if any("m" in pair for pair in pairs):
        raise CheckpointError(
            f"{view.source}: DoRA of the parameters of {owner} cannot be merged (merge it with "
            "PEFT and give the full checkpoint)"
        )
    names = sorted(set(view.config.parameter_of(owner)), reverse=True)  # gate_up, then down
    if view.part.rename(f"{owner}.weight") in view.part.base:
        names = ["weight"]  # a parameter's name alone is that of any module's
    if len(names) != len(pairs):
        raise view.lacking(owner)
    fitting = [
        found
        for order in permutations(names)
        if (found := _fitted(view, owner, order, list(reversed(pairs)))) is not None
    ]
    if not fitting:
        raise view.lacking(owner)
    for name, updates in fitting[0].items():
        made.setdefault(name, []).extend(updates)


def _fitted(
    view: View, owner: str, names: Sequence[str], pairs: Sequence[Pair]
) -> dict[str, list[Update]] | None:
    """Updates of the parameters in this order; None where a shape does not fit."""
    made: dict[str, list[Update]] = {}
    for name, pair in zip(names, pairs, strict=True):
        found = _parameter(view, owner, name, pair)
        if found is None:
            return None
        made.update(found)
    return made


def _parameter(view: View, owner: str, name: str, pair: Pair) -> dict[str, list[Update]] | None:
    a, b, _ = view.factors(owner, pair)
    key, first, second = f"{owner}.{name}", view.shape(a), view.shape(b)
    rank = view.config.expected_rank(key) or 0
    if len(first) != 2 or len(second) != 2 or not rank or first[0] % rank:
        return None
    experts, into, out = first[0] // rank, first[1], second[0]
    if second[1] != first[0]:
        return None
    scaling = view.config.scaling(key, rank, None)
    fused = view.part.rename(key)
    if fused in view.part.base:
        shape = view.part.base[fused].shape
        flip = _turned(view, shape, (experts, out, into), key)
        return None if flip is None else {fused: [Update(a, b, scaling, rank, flip, experts)]}
    return _unfused(view, owner, name, Update(a, b, scaling, rank, False, experts), (out, into))


def _turned(
    view: View, shape: tuple[int, ...], wanted: tuple[int, int, int], key: str
) -> bool | None:
    """Whether a fused weight is stored as inputs × outputs; None where it does not fit."""
    experts, out, into = wanted
    if len(shape) == 2:
        return False if experts == 1 and shape == (out, into) else None
    straight, turned = shape == wanted, shape == (experts, into, out)
    if straight and turned:
        others = _siblings_turned(view, key)
        if others is None:
            raise CheckpointError(
                f"{view.source}: {key} is square, and nothing says which side is the input; "
                "merge it with PEFT and give the full checkpoint"
            )
        return others
    return turned if straight or turned else None


def _siblings_turned(view: View, key: str) -> bool | None:
    """The side of the inputs, from gate_up_proj and down_proj of one module together.

    gate_up_proj has twice the inner size where down_proj has it once.
    """
    owner = key.rpartition(".")[0]
    gate = view.part.base.get(view.part.rename(f"{owner}.gate_up_proj"))
    down = view.part.base.get(view.part.rename(f"{owner}.down_proj"))
    if gate is None or down is None or len(gate.shape) != 3 or len(down.shape) != 3:
        return None
    turned = gate.shape[2] == 2 * down.shape[1] and gate.shape[1] == down.shape[2]
    straight = gate.shape[1] == 2 * down.shape[2] and gate.shape[2] == down.shape[1]
    return turned if turned != straight else None


def _unfused(
    view: View, owner: str, name: str, update: Update, size: tuple[int, int]
) -> dict[str, list[Update]] | None:
    """The same update, expert by expert, where the base stores them so."""
    place = view.part.inside(owner)
    for stem in (place, place.replace(".mlp.experts", ".block_sparse_moe.experts")):
        for leaves in _UNFUSED.get(name, ()):
            found = _experts(view, stem, leaves, update, size)
            if found:
                return found
    return None


def _experts(
    view: View, stem: str, leaves: Sequence[str], update: Update, size: tuple[int, int]
) -> dict[str, list[Update]] | None:
    rows = size[0] // len(leaves)
    made: dict[str, list[Update]] = {}
    for expert in range(update.experts):
        for place, leaf in enumerate(leaves):
            name = f"{stem}.{expert}.{leaf}.weight"
            tensor = view.part.base.get(name)
            if tensor is None or tensor.shape != (rows, size[1]):
                return None
            cut = (place * rows, (place + 1) * rows)
            made[name] = [replace(update, expert=expert, rows=cut)]
    return None if f"{stem}.{update.experts}.{leaves[0]}.weight" in view.part.base else made
