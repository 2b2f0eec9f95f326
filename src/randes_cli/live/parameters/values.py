"""The base's values of a parameter with tasks, which may be read and not written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch

from randes_cli.errors import UsageError
from randes_cli.live.parameters.intercepted import Intercepted
from randes_cli.live.parameters.rows import name_of

#: Operators that write to what stands before them.
_OPERATORS = frozenset(
    (
        *("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__ipow__"),
        *("__imod__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
        *("__setitem__", "__set__"),
    )
)


class Values(Intercepted):
    """What `parameter.data` is where tasks are attached: what is made of it is plain."""

    called: str

    @classmethod
    def of(cls, parameter: torch.Tensor, name: str) -> Values:
        """Those of a parameter; torch counts what is written to them as written to it."""
        with torch._C.DisableTorchFunctionSubclass():
            made = parameter.detach().as_subclass(cls)
        made.called = name
        return made

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        return deepcopy(self.detach(), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        target = writes(func, name_of(func), args, kwargs)
        if isinstance(target, Values):
            raise written(target.called)
        with torch._C.DisableTorchFunctionSubclass():
            made = func(*args, **kwargs)
        return made.as_subclass(torch.Tensor) if isinstance(made, Values) else made


def writes(
    func: Callable[..., Any], name: str, args: Sequence[Any], given: Mapping[str, Any]
) -> Any:
    """What an operation writes to: its first argument, or what is given as `out`; None: nothing."""
    inplace = name.endswith("_") and not name.endswith("__")
    if args and (inplace or name in _OPERATORS or func.__name__ == "__set__"):
        return args[0]
    return given.get("out")


def written(name: str) -> UsageError:
    """The refusal to write to a parameter that has tasks."""
    return UsageError(f"{name}: cannot be written to while tasks are attached; detach them first")
