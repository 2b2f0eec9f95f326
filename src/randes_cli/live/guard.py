"""Keeps what would change an attached model's parameters, or save one of its answers, from them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import nn

from randes_cli.errors import MismatchError, UsageError
from randes_cli.live.batch.rows import watch_rows
from randes_cli.live.batch.selection import Current
from randes_cli.live.layers.operations import mixed_parameter
from randes_cli.live.parameters.mixed_parameter import Mixed
from randes_cli.live.parameters.rows import Rows
from randes_cli.live.replaced import replace


def guard(model: nn.Module, current: Current, undo: ExitStack) -> None:
    """Let modules ask all parameters with tasks before any is changed (`half`, `to`, `cuda`), and
    save nothing in a block that names tasks.

    Torch changes one parameter after the other: a refusal would leave those before it changed.
    """
    hook = partial(_unsaved, current)
    for module in filter(_mixed, model.modules()):
        handle: Any = module.register_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]
        undo.callback(handle.remove)
        replace(module, "_apply", partial(_asked, module), undo)
        replace(module, "_replicate_for_data_parallel", _replicated, undo)
    undo.callback(model.register_forward_hook(_answered).remove)
    watch_rows(model, current, undo)


def _mixed(module: nn.Module) -> list[Mixed]:
    return [v for v in (*module.parameters(), *module.buffers()) if isinstance(v, Mixed)]


def _unsaved(current: Current, *_: Any) -> None:
    """A state dict is the base's: in a block of other tasks it would be taken for theirs."""
    if current.selection is not None:
        raise UsageError(
            "a model is not saved inside a block that names tasks: outside it the base is, and "
            "`randes unpack --task` or from_bank give a task"
        )


def _replicated() -> None:
    """A replica's parameters are the base's values on another device."""
    raise UsageError(
        "a model with tasks attached is not replicated (nn.DataParallel): attach to a model on "
        "each device"
    )


def _answered(model: nn.Module, _: Any, made: Any) -> None:
    """What a model makes of parameters alone, and of more than a number, is no answer by rows."""
    several = made.values() if isinstance(made, dict) else made
    for value in several if isinstance(made, dict | tuple | list) else [made]:
        if isinstance(value, Rows) and len(value.spread.shape) > 1:
            raise MismatchError(
                f"{type(model).__name__}: puts parameters and its inputs together in a way that is "
                "not known here; run the tasks one after the other (randes_cli.Pool)"
            )


def _asked(module: nn.Module, change: Callable[[Any], Any], *more: Any, **given: Any) -> Any:
    """`Module._apply` where no parameter with tasks refuses the change: these stay as they are.

    They are asked as outside a block: inside one a cast would be of what a task makes of them.
    """
    for parameter in _mixed(module):
        change(mixed_parameter(parameter.weight, Current()))
    torch_does: Any = type(module)._apply
    kept = [
        (store, name, value)
        for store in (module._parameters, module._buffers)
        for name, value in store.items()
        if isinstance(value, Mixed)
    ]
    for store, name, _ in kept:
        store[name] = None
    try:
        return torch_does(module, change, *more, **given)
    finally:
        for store, name, value in kept:
            store[name] = value
