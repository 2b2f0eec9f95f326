"""Keys and values of a batch whose rows come and go; all rows end at the same column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch.nn import functional as F  # noqa: N812
from transformers.cache_utils import DynamicLayer

from randes_cli.errors import MismatchError

#: Layers of a cache that hold keys and values, whatever part of them they drop.
_PLAIN = ("DynamicLayer", "DynamicSlidingWindowLayer")
#: Columns of room that a layer makes at least.
_ROOM = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that writes new columns where it has room, in place of copying all at each step."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._rooms: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._appended("keys", self.keys, key_states)
        self.values = self._appended("values", self.values, value_states)
        return self.keys, self.values

    def _appended(self, name: str, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        used = held.shape[-2] if held.numel() else 0
        size, room = used + new.shape[-2], self._rooms.get(name)
        if room is None or room.shape[-2] < size or room.data_ptr() != held.data_ptr():
            room = new.new_empty(*new.shape[:-2], size + max(_ROOM, size // 4), new.shape[-1])
            if used:
                room[..., :used, :] = held
            self._rooms[name] = room
        room[..., used:size, :] = new
        return room[..., :size, :]


def empty() -> Any:
    return transformers.Cache(layer_class_to_replicate=GrowingLayer)


def check(model: torch.nn.Module) -> None:
    """Raise MismatchError where a model remembers other things than keys and values."""
    config: Any = model.config
    made = transformers.DynamicCache(config=config)
    strange = {type(layer).__name__ for layer in made.layers} - set(_PLAIN)
    if strange:
        raise MismatchError(
            f"a {config.model_type} remembers more than keys and values ({', '.join(strange)}); "
            "rows cannot join its batch: unpack its tasks and serve them one by one"
        )


def select(cache: Any, rows: Sequence[int], first: int) -> None:
    """Keep some rows, from a column on."""
    for layer in cache.layers:
        if layer.is_initialized:
            index = torch.tensor(rows, device=layer.keys.device)
            layer.keys = layer.keys[..., first:, :].index_select(0, index)
            layer.values = layer.values[..., first:, :].index_select(0, index)


def join(cache: Any, other: Any) -> None:
    """Add the rows of another cache below those of the first; the shorter is filled in front."""
    for layer, more in zip(cache.layers, other.layers, strict=True):
        if layer.is_initialized:
            layer.keys = _stacked(layer.keys, more.keys)
            layer.values = _stacked(layer.values, more.values)


def _stacked(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    width = max(one.shape[-2], two.shape[-2])
    return torch.cat([F.pad(part, (0, 0, width - part.shape[-2], 0)) for part in (one, two)])
