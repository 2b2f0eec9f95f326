"""Tensors whose class says what every operation on them gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch


class Intercepted(torch.Tensor):
    """A tensor whose class says what every operation on it gives.

    Where an operation meets tensors of two such classes, the one that `comes_first` answers.
    """

    comes_first: ClassVar[bool] = False

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
        others = (kind for kind in types if issubclass(kind, Intercepted) and kind.comes_first)
        if not cls.comes_first and any(others):
            return NotImplemented
        return cls.answer(func, args, dict(kwargs or {}))
