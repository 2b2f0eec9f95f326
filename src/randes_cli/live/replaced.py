"""Functions of modules that are others while tasks are attached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn


def replace(module: nn.Module, name: str, function: Callable[..., Any], undo: ExitStack) -> None:
    """Have a module do this in place of what it does (by its class, or by a function of its own,
    as accelerate's hooks are), until `undo` is closed."""
    own = module.__dict__
    if name in own:
        undo.callback(own.__setitem__, name, own[name])
    else:
        undo.callback(own.pop, name, None)
    own[name] = function
