"""Models that are in a pool: another pool, or tasks, would write to them unseen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakSet

from torch import nn

from randes_cli.errors import UsageError
from randes_cli.live.attaching import Slot

#: Each has the `_slots` that it writes to.
_OPEN: WeakSet[Any] = WeakSet()
_LOCK = Lock()
#: How deep parts are watched (``model.layers.0`` is): to ask before each small layer takes a while.
_DEEP = 3


def add(pool: Any) -> None:
    """From now on the pool's model is its own. Raises UsageError where it is another's."""
    refuse_pooled(pool.model)
    with _LOCK:
        _OPEN.add(pool)


def watch(
    model: nn.Module, slots: Sequence[Slot], before: Callable[[nn.Module, Any], None]
) -> list[Any]:
    """Have a model, and its parts by themselves, ask first; the hooks that see to it.

    What has nothing of the pool's (a loss, an activation) answers as ever.
    """
    written = {module for slot in slots for module, _ in slot.places}
    return [
        part.register_forward_pre_hook(before)
        for name, part in model.named_modules()
        if name.count(".") < _DEEP and not written.isdisjoint(part.modules())
    ]


def discard(pool: Any) -> None:
    """The pool was closed."""
    with _LOCK:
        _OPEN.discard(pool)


def refuse_pooled(model: nn.Module) -> None:
    """Raises UsageError where an open pool swaps tasks into some of a model's parameters."""
    mine = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    with _LOCK:
        pools = list(_OPEN)
    for pool in pools:
        for slot in pool._slots:
            if id(slot.tensor) in mine:
                raise UsageError(f"{slot.names[0]}: the model is in a pool; close that first")
