"""Keeps what would change an attached model's parameters (`half`, `to`, `cuda`) from the first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from randes_cli.live.mixed_parameter import Mixed


def guard(model: nn.Module) -> list[nn.Module]:
    """Let modules ask all parameters with tasks before any is changed; returns these modules.

    Torch changes one parameter after the other: a refusal would leave those before it changed.
    """
    guarded = [module for module in model.modules() if _mixed(module)]
    for module in guarded:
        module.__dict__["_apply"] = partial(_asked, module)
    return guarded


def release(modules: list[nn.Module]) -> None:
    for module in modules:
        del module.__dict__["_apply"]


def _mixed(module: nn.Module) -> list[Mixed]:
    return [v for v in (*module.parameters(), *module.buffers()) if isinstance(v, Mixed)]


def _asked(module: nn.Module, change: Callable[[Any], Any], *more: Any, **given: Any) -> Any:
    """`Module._apply` where no parameter with tasks refuses the change."""
    for parameter in _mixed(module):
        change(parameter)
    torch_does: Any = type(module)._apply
    return torch_does(module, change, *more, **given)
