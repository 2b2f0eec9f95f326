"""Tensors of which torch asks what its operations give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


class Intercepted(torch.Tensor):
    """A tensor whose class says what every operation on it gives."""

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What `func` gives where some of its arguments are of this class."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return cls.answer(func, args, dict(kwargs or {}))


def plain(value: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor that torch asks nothing of."""
    with torch._C.DisableTorchFunctionSubclass():
        found: torch.Tensor = value.as_subclass(torch.Tensor)
    return found
