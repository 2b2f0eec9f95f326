"""Where an adapter's updates go: which of the base's tensors each of its modules adapts."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.lora.composed import composed
from randes_cli.files.lora.experts import add_parameters
from randes_cli.files.lora.view import BASE_LAYER, Matrix, Pair, Update, View
from randes_cli.files.weight_names import ADAPTER_CONFIG

#: Modules of transformers' Conv1D, which stores weights as inputs × outputs.
_CONV1D = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
#: Parts of modules that have no more than LoRA.
_PLAIN = frozenset({"A", "B", "eA", "eB", "bias", "own bias", "m"})


def updates(view: View, pairs: Mapping[str, Pair]) -> dict[str, list[Update]]:
    """Updates by the base's tensor. Raises CheckpointError, MismatchError."""
    _check(view, pairs)
    made: dict[str, list[Update]] = {}
    experts: dict[str, list[str]] = {}
    for module, pair in pairs.items():
        name = _weight(view, module)
        if name is None or "weight" in view.config.parameter_of(module):
            experts.setdefault(module.replace(BASE_LAYER, ""), []).append(module)
            continue
        times = 2 if _below_attention(module, pairs) else 1
        if pair.keys() - {"own bias"}:
            made.setdefault(name, []).extend([_update(view, module, pair, name)] * times)
        for part in pair.keys() & {"bias", "own bias"}:
            _add_bias(view, made, module, pair, part)
    for owner, modules in experts.items():
        add_parameters(view, made, owner, [pairs[m] for m in sorted(modules, key=len)])
    return made


def _below_attention(module: str, pairs: Mapping[str, Pair]) -> bool:
    """Whether PEFT adds an update twice: the last layer's of a torch attention that it adapts.

    It does so when it merges and in every forward, so that such adapters are trained with it.
    """
    owner, found, last = module.rpartition(f"{BASE_LAYER}.")
    return bool(found) and last == "out_proj" and owner in pairs


def _check(view: View, pairs: Mapping[str, Pair]) -> None:
    """Raise CheckpointError where the configuration promises factors that are not there."""
    owners = {module.replace(BASE_LAYER, "") for module in pairs}
    wrapped = {owner for owner in owners if _weight(view, owner) is None}
    for text in view.config.parameters:
        owner, _, leaf = text.rpartition(".")
        if leaf == "weight" and not view.part.has_module(owner):
            continue  # of other models of the kind, for which PEFT's table has it as well
        if not any(name == owner or name.endswith(f".{owner}") for name in owners) and (
            owner or not wrapped  # a parameter's name alone is that of any module's
        ):
            raise CheckpointError(
                f"{view.source}: {ADAPTER_CONFIG} says target_parameters {text[:200]!r}, "
                "which no tensor adapts"
            )
    if view.config.lora_bias and not any("bias" in pair for pair in pairs.values()):
        raise CheckpointError(
            f"{view.source}: {ADAPTER_CONFIG} says lora_bias, but no tensor is one"
        )


def _weight(view: View, module: str) -> str | None:
    plain = module.replace(BASE_LAYER, "")
    for leaf in ("weight", "in_proj_weight"):
        name = view.part.rename(f"{plain}.{leaf}")
        if name in view.part.base:
            return name
    return None


def _update(view: View, module: str, pair: Pair, name: str) -> Update:
    """The update of a weight; factors are checked against configuration and weight."""
    plain, lengths = pair.keys() <= _PLAIN, "m" in pair
    if lengths > view.config.dora or (plain and lengths < view.config.dora):
        raise CheckpointError(f"{view.source}: {module} and {ADAPTER_CONFIG} differ about use_dora")
    place, shape = _place(view, module, "weight", name), view.part.base[name].shape
    if place is not None:
        shape = (place[1] - place[0], *shape[1:])
    return (_plain if plain else composed)(view, module, pair, shape, place)


def _plain(
    view: View, module: str, pair: Pair, shape: tuple[int, ...], place: tuple[int, int] | None
) -> Update:
    """scaling · B · A, of a weight of this shape or of these rows of one."""
    a, b, embedding = view.factors(module, pair)
    first, second = view.shape(a), view.shape(b)
    rank, expected = first[0] if first else 0, view.config.expected_rank(module)
    if rank < 1 or rank != prod(second[1:]) or rank != (expected or rank):
        raise CheckpointError(
            f"{view.source}: {module} has factors {list(first)} and {list(second)}, "
            f"{ADAPTER_CONFIG} says rank {expected or rank}"
        )
    out, into = second[0], prod(first[1:])
    turned = shape == (into, out) and place is None
    straight = prod(shape) == out * into
    if len(shape) == 2:
        straight = shape == (out, into)
    named = module.rpartition(".")[2] in _CONV1D  # PEFT lets no other module be told to be one
    conv1d = named and (view.config.fan_in_fan_out or _stored_turned(view))
    flip = turned and (embedding or not straight or conv1d)
    if not (flip or (straight and not embedding)):
        raise MismatchError(
            f"{view.source}: {module} adapts a weight of {[out, into]}, "
            f"the base's has {list(shape)}"
        )
    scaling = view.config.scaling(module, rank, view.alpha(module))
    return Update(a, b, scaling, rank, flip, magnitude=pair.get("m"), place=place)


def _place(view: View, module: str, leaf: str, name: str) -> tuple[int, int] | None:
    """The rows of the base's tensor that a module's weight or bias is; None for all of them."""
    piece = view.part.piece(f"{module.replace(BASE_LAYER, '')}.{leaf}")
    return None if piece is None else piece.rows(view.part.base[name].shape[0])


def _stored_turned(view: View) -> bool:
    """Whether a module that may be a Conv1D is one, by the others of the base."""
    base = view.part.base
    for name, tensor in base.items():
        if name.endswith(("c_attn.weight", "c_fc.weight")) and len(tensor.shape) == 2:
            bias = base.get(f"{name.removesuffix('weight')}bias")
            outputs = bias.elements if bias else 0
            if outputs == tensor.shape[1] != tensor.shape[0]:
                return True
    return False


def _add_bias(
    view: View, made: dict[str, list[Update]], module: str, pair: Pair, part: str
) -> None:
    """What is added to a module's bias: B's own (`lora_bias`), scaled alike, or a difference."""
    name, whole = view.part.rename(f"{module}.bias"), pair[part]
    tensor = view.part.base.get(name)
    place = None if tensor is None else _place(view, module, "bias", name)
    shape = tensor and ((place[1] - place[0],) if place else tensor.shape)
    if shape is None or shape != view.shape(whole):
        raise MismatchError(
            f"{view.source}: {module} adapts a bias that the base lacks; keep it an adapter"
        )
    scaling, kind = 1.0, "difference"
    if part == "bias":
        rank = view.shape(view.factors(module, pair)[0])[0]
        scaling, kind = view.config.scaling(module, rank, view.alpha(module)), "LoRA"
    matrix = Matrix(whole, (shape[0], 1))
    update = Update(whole, whole, scaling, place=place, matrices=(matrix,), kind=kind)
    made.setdefault(name, []).append(update)
