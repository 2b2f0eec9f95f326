"""The modules of a model, to notice those that took the place of others, or came."""

from __future__ import annotations

from torch import nn

from randes_cli.live.matching.adapters import layers_of_peft, refuse_merged


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
