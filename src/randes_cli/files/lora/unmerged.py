"""Banks of LoRA adapters: what is one, what its factors are superposed from, who fits together.

`files/lora` merges an adapter into its base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from randes_cli.errors import CheckpointError, MismatchError
from randes_cli.files.checkpoint.checkpoint import Checkpoint
from randes_cli.files.lora.config import is_diffusers, read_config, refuse_kind
from randes_cli.files.lora.flat_names import Placed, is_flat
from randes_cli.files.lora.names import (
    WRAPPED,
    foreign,
    is_factor,
    is_of_lycoris,
    parse,
    plain_factor,
)
from randes_cli.files.lora.ties import may_share
from randes_cli.files.lora.view import BASE_LAYER, Part
from randes_cli.files.source import Source, ZeroBase
from randes_cli.files.weight_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from randes_cli.specs import Tensors, once

#: What the base of a bank of adapters is called after, beside the first adapter.
_SHAPES = " (names and shapes)"


def is_adapter(source: Source) -> bool:
    """Whether a checkpoint holds an adapter and not a model: most of its tensors are factors."""
    if getattr(source, "layout", {}).get("") == ADAPTER_WEIGHTS:
        return True
    return once(_of_adapter, source.tensors)


def _of_adapter(tensors: Tensors) -> bool:
    factors = sum(is_factor(name) or is_of_lycoris(name) for name in tensors)
    return 2 * factors >= len(tensors) > 0 or foreign(tensors) is not None


def adapter_base(first: Checkpoint) -> ZeroBase:
    """The base of a bank of adapters: names and shapes of the first one's factors.

    Its other tensors (saved heads) are not in it, so every task keeps its own.
    """
    factors = {name: tensor for name, tensor in first.tensors.items() if is_factor(name)}
    return ZeroBase(f"{first.source}{_SHAPES}", factors)


def require_adapts(adapter: Checkpoint, base: Source) -> None:
    """Raise MismatchError unless a base has a weight for every module of an adapter."""
    if is_flat(adapter.tensors):
        Placed(adapter, base)
        return
    modules = dict.fromkeys(
        found.module.replace(BASE_LAYER, "")
        for name in adapter.tensors
        if (found := parse(name.removeprefix(WRAPPED))) is not None
    )
    weights = [f"{module}.weight" for module in modules]
    components = sorted({name.rpartition("/")[0] for name in base.tensors})
    parts = [Part(base, component, weights) for component in components]
    for module in modules:
        inner = [module, module.partition(".")[2]]  # a diffusers LoRA names the component first
        places = [part.inside(name) for part in parts for name in inner if name]
        if not any(_has_module(base, place) for place in places):
            raise MismatchError(
                f"{adapter.source}: adapts {module}, which the base ({base.source}) lacks"
            )


def _has_module(base: Source, module: str) -> bool:
    if f"{module}.weight" in base.tensors or may_share(base.tensors, f"{module}.weight"):
        return True
    return any(name.startswith(f"{module}.") for name in base.tensors)


def require_alike(adapter: Checkpoint, base: Source) -> None:
    """Raise MismatchError, saying how, when an adapter has other targets or ranks than `base`."""
    if not is_adapter(adapter):
        raise MismatchError(
            f"{adapter.source}: no LoRA adapter, and this bank holds adapters alone"
        )
    refuse_kind(adapter)
    if adapter.folder is not None and not is_diffusers(adapter):
        read_config(adapter)
    _refuse_foreign(adapter)
    how = _difference(_factors(adapter.tensors), _factors(base.tensors))
    if how:
        raise MismatchError(
            f"{adapter.source}: {how}, unlike {base.source.removesuffix(_SHAPES)}; the adapters of "
            "one bank agree in rank and targets: make two banks, or name their base first to merge "
            "them"
        )


def _refuse_foreign(adapter: Checkpoint) -> None:
    """Raise CheckpointError for an adapter that has other factors than LoRA's, or none.

    What it has beside them (DoRA's lengths, trained tokens) is its own.
    """
    what = foreign(adapter.tensors) or ""
    if any(map(is_of_lycoris, adapter.tensors)):
        what = "a LoHa or LoKr"
    if re.search("LyCORIS|LoKr|mlx", what):
        raise CheckpointError(
            f"{adapter.source}: {what}; a bank of adapters superposes LoRA's factors (name the "
            "base to merge it, or merge it with the library that it comes from)"
        )
    if not any(map(is_factor, adapter.tensors)):
        raise CheckpointError(f"{adapter.source}: an adapter without LoRA factors")


def without_config(adapter: Checkpoint) -> tuple[str, ...]:
    """What to say of an adapter that is kept, and that nobody can load as it comes back."""
    if adapter.folder is not None or is_diffusers(adapter):
        return ()
    return (f"comes without an {ADAPTER_CONFIG}, which PEFT needs: name the folder that has both",)


def _factors(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Shapes of factors by what they are, whatever name the adapter has in front or inside."""
    made = {plain_factor(name): t.shape for name, t in tensors.items() if is_factor(name)}
    count = sum(map(is_factor, tensors))
    return made if len(made) == count else {name: t.shape for name, t in tensors.items()}


def _difference(
    ours: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]
) -> str | None:
    """How the factors of an adapter differ from those of a bank, in words."""
    extra, lacking = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if extra or lacking:
        parts = [f"also targets {_module(extra[0])}"] if extra else []
        parts += [f"does not target {_module(lacking[0])}"] if lacking else []
        return " and ".join(parts)
    name = next((name for name in ours if ours[name] != theirs[name]), None)
    if name is None:
        return None
    rank, wanted = (min(shapes[name], default=0) for shapes in (ours, theirs))
    if rank != wanted:
        return f"has rank {rank}, not {wanted}, at {_module(name)}"
    return f"has {name!r} of shape {list(ours[name])}, not {list(theirs[name])}"


def _module(name: str) -> str:
    found = parse(name.removeprefix(WRAPPED))
    return found.module if found else name
