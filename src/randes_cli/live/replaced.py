"""Functions of modules that are others while tasks are attached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn


def replace(module: nn.Module, name: str, function: Callable[..., Any], undo: ExitStack) -> None:
    """Have a module do this in place of what its class does, until `undo` is closed."""
    module.__dict__[name] = function
    undo.callback(module.__dict__.pop, name, None)
