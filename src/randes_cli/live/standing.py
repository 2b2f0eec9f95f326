"""Whether an attached model still has the parameters that `attach` gave it, as it wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from randes_cli.errors import UsageError
from randes_cli.live.adapters import plain_modules, unwrapped
from randes_cli.live.attaching import Slot, holds
from randes_cli.live.links import Links
from randes_cli.live.mixed_parameter import Mixed
from randes_cli.live.swaps import versions


class Standing:
    """Looks at the beginning of a block, and of every run in it."""

    def __init__(self, model: nn.Module, slots: Sequence[Slot]) -> None:
        self._model, self._slots = model, slots
        self._places = [(slot.names[0], place) for slot in slots for place in slot.places]
        self._links, self._versions = Links(model), versions(slots)
        self._hook = model.register_forward_pre_hook(self._look)

    def release(self) -> None:
        self._hook.remove()

    def check(self) -> None:
        """Raises UsageError where a parameter was replaced or written to."""
        kept = self._links.kept
        for name, place in self._places if kept else [*self._places, *self._now()]:
            _refuse_other(name, *place)
        self._links = self._links if kept else Links(self._model)
        found = versions(self._slots)
        for slot, before, now in zip(self._slots, self._versions, found, strict=True):
            if before != now:
                raise UsageError(
                    f"{slot.names[0]}: was written to after attach: detach, and attach anew"
                )

    def _look(self, *_: object) -> None:
        """Of parameters that are replaced for one run, as `torch.func.functional_call` does."""
        if not torch.compiler.is_compiling():
            for name, place in self._places:
                _refuse_other(name, *place)

    def _now(self) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
        """What the model has now under the names of parameters with tasks, as layers changed."""
        modules = plain_modules(unwrapped(self._model))
        for slot in self._slots:
            for name, _ in zip(slot.names, slot.places, strict=False):
                layer, _, attribute = name.rpartition(".")
                if layer in modules and holds(modules[layer], attribute) is not None:
                    yield slot.names[0], (modules[layer], attribute)


def _refuse_other(name: str, module: nn.Module, attribute: str) -> None:
    found = holds(module, attribute)
    if not isinstance(found, Mixed) or found.weight.name != name:
        raise UsageError(
            f"{name}: was replaced after attach, and has no tasks: detach, and attach anew"
        )
