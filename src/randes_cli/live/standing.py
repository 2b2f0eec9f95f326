"""Whether an attached model still has the parameters that `attach` gave it, as it wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn

from randes_cli.errors import UsageError
from randes_cli.live.attaching import Slot, holds
from randes_cli.live.matching.adapters import Links, plain_places, unwrapped
from randes_cli.live.parameters.mixed_parameter import Mixed
from randes_cli.live.pool.swaps import versions


class Standing:
    """Looks at the beginning of a block, and of every run in it."""

    def __init__(self, model: nn.Module, slots: Sequence[Slot], undo: ExitStack) -> None:
        self._model, self._slots = model, slots
        self._places = [(slot.names[0], place) for slot in slots for place in slot.places]
        self._links, self._writes = Links(model), _writes(slots)
        self._names = set(_parameters(model))
        undo.callback(model.register_forward_pre_hook(self._look).remove)

    def check(self) -> None:
        """Raises UsageError where a parameter was replaced, added or written to."""
        for name, place in self._places:
            _refuse_other(name, *place)
        if not self._links.kept:
            self._check_layers()
            self._links = Links(self._model)
        now = _writes(self._slots)
        for slot, before, after in zip(self._slots, self._writes, now, strict=True):
            if before != after:
                raise UsageError(
                    f"{slot.names[0]}: was written to after attach: detach, and attach anew"
                )

    def _look(self, *_: object) -> None:
        """Of parameters that are replaced for one run, as `torch.func.functional_call` does."""
        if not torch.compiler.is_compiling():
            for name, place in self._places:
                _refuse_other(name, *place)

    def _check_layers(self) -> None:
        """What the model has now under the names of parameters with tasks, and what is new.

        Layers that were fused have the base's values alone.
        """
        now = _parameters(self._model)
        for slot in self._slots:
            for name in slot.names[: len(slot.places)]:
                if name in now:
                    _refuse_other(slot.names[0], *now[name])
        for name in now.keys() - self._names:
            raise UsageError(
                f"{name}: was added after attach, and has no tasks: detach, and add it before"
            )


def _writes(slots: Sequence[Slot]) -> list[int]:
    """How often torch wrote to each; memory that is shared with a process moves, unwritten."""
    return [times for times, _ in versions(slots)]


def _parameters(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Where a model's own parameters and buffers are, by name; adapters' are left out."""
    return {
        name: (layer, attribute) for name, layer, attribute, _ in plain_places(unwrapped(model))
    }


def _refuse_other(name: str, module: nn.Module, attribute: str) -> None:
    found = holds(module, attribute)
    if not isinstance(found, Mixed) or found.weight.name != name:
        raise UsageError(
            f"{name}: was replaced after attach, and has no tasks: detach, and attach anew"
        )
