"""The modules of a model, to notice those that took the place of others."""

from __future__ import annotations

from torch import nn


class Links:
    """Which modules a model has, where."""

    def __init__(self, model: nn.Module) -> None:
        self._links = [
            (parent._modules, name, child)
            for parent in model.modules()
            for name, child in parent._modules.items()
        ]

    @property
    def kept(self) -> bool:
        """Whether all are where they were."""
        return all(store.get(name) is child for store, name, child in self._links)
