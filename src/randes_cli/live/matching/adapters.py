"""Models that have adapters of PEFT: the names that their own parameters had before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from randes_cli.errors import UsageError
from randes_cli.files.lora.config import CHANGED_BASE

T = TypeVar("T")
#: What a layer of PEFT calls the layer that it took the place of.
_REPLACED = ("base_layer", "original_module", "token_adapter")

#: Adapters whose layers do not ask the weights that they are put on.
_INSTEAD = ("FROD",)


def unwrapped(module: nn.Module) -> nn.Module:
    """The model inside a model of PEFT; others as they are.

    Raises UsageError where an adapter lies in the weights that a bank is to fill, or changed them
    when it was put on.
    """
    found: Any = module
    if _of_peft(module) and hasattr(module, "get_base_model"):
        found = found.get_base_model()
    refuse_merged(layers_of_peft(found))
    for name, config in (getattr(found, "peft_config", None) or {}).items():
        start = str(getattr(config, "init_lora_weights", None)).lower()
        if start.startswith(CHANGED_BASE):
            raise UsageError(
                f"the adapter {name} took its part out of the weights (init_lora_weights={start}), "
                "which a bank fills anew: convert it to a plain LoRA (PEFT's "
                "path_initial_model_for_weight_conversion)"
            )
        kind = str(getattr(config, "peft_type", None)).rpartition(".")[2]
        if kind in _INSTEAD:
            raise UsageError(
                f"the adapter {name} ({kind}) answers with what it made of the weights when it was "
                "put on, not with theirs: put it on unpacked models"
            )
    return found if isinstance(found, nn.Module) else module


def layers_of_peft(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What PEFT put into a model, by name."""
    return ((name, layer) for name, layer in module.named_modules() if _of_peft(layer))


def refuse_merged(layers: Iterable[tuple[str, nn.Module]]) -> None:
    """Raises UsageError where an adapter lies in the weights."""
    for name, layer in layers:
        if getattr(layer, "merged", False):
            raise UsageError(f"{name}: an adapter is merged into its weights; unmerge it first")


def plain_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without what adapters have, under the names that it had without them."""
    return _plainly(module, module.state_dict(keep_vars=True))


def plain_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Modules under the names that they had without adapters: layers, not what wraps them."""
    return _plainly(module, dict(module.named_modules()))


def plain_places(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor]]:
    """Parameters and buffers under such names, each with its layer and what it is called there."""
    for prefix, layer in plain_modules(module).items():
        for attribute, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{attribute}" if prefix else attribute, layer, attribute, tensor


def _plainly(module: nn.Module, found: Mapping[str, T]) -> dict[str, T]:
    wrappers = {name for name, _ in layers_of_peft(module)}
    named = {_plain(name, wrappers): value for name, value in found.items()}
    return {name: value for name, value in named.items() if name is not None}


def _of_peft(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "peft"


def _plain(name: str, wrappers: Collection[str]) -> str | None:
    """A name without the wrappers on its way; None for what an adapter has."""
    kept, way = list[str](), ""
    for part in name.split("."):
        if way not in wrappers:
            kept.append(part)
        elif part not in _REPLACED:
            return None
        way = f"{way}.{part}" if way else part
    return ".".join(kept)


class Links:
    """Which modules a model has, where."""

    def __init__(self, model: nn.Module) -> None:
        self._links = [(layer._modules, dict(layer._modules)) for layer in model.modules()]
        self._adapters = list(layers_of_peft(model))

    @property
    def kept(self) -> bool:
        """Whether all are where they were, and no others."""
        return all(now == before for now, before in self._links)

    def refuse_merged(self) -> None:
        """Raises UsageError where an adapter lies in the weights."""
        refuse_merged(self._adapters)
