"""A parameter that answers each row of a batch with its own task's values.

Torch hands every operation on it to `__torch_function__`. Products, look-ups and norms are
computed for all tasks at once; whatever else a model does with it goes through `Rows`, and what
neither knows is an error, never the base's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from randes_cli.errors import MismatchError, UsageError
from randes_cli.live.batch.selection import Current, Selection, refuse_recording
from randes_cli.live.parameters.intercepted import Intercepted
from randes_cli.live.parameters.rows import apply, name_of, spread_of
from randes_cli.live.parameters.spread import Spread, met
from randes_cli.live.parameters.values import Values, writes, written
from randes_cli.live.weights.weight import Weight

#: What may be asked outside a block that names tasks: the base's values.
_OUTSIDE = frozenset(
    (
        *("detach", "clone", "numpy", "tolist", "contiguous", "equal", "allclose"),
        *("cpu", "to", "float", "isfinite", "all", "__repr__", "__format__"),
        *("half", "double", "bfloat16", "cuda", "xpu"),  # where they change nothing
    )
)
#: What tells of a tensor without its values, beside what begins with one of `_QUESTIONS`.
_ABOUT = frozenset(
    (
        *("size", "dim", "stride", "numel", "nelement", "element_size", "data_ptr", "get_device"),
        *("storage_offset", "untyped_storage", "storage", "type", "requires_grad_"),
        *("shape", "ndim", "dtype", "device", "requires_grad", "is_floating_point"),
        *("__len__", "__hash__"),
    )
)
#: What may change a tensor's dtype and device, and nothing else.
_CASTS = frozenset(("to", "float", "half", "bfloat16", "double", "type_as", "type", "contiguous"))
_QUESTIONS = ("is_", "_is_", "has_")
_VALUES = frozenset(("T", "mT", "H", "mH", "data", "real", "imag"))


_FREEZE: Any = torch.Tensor.requires_grad.__set__  # type: ignore[attr-defined]

#: Operations that are computed for all tasks at once; `operations` fills it.
HANDLERS: dict[Any, Callable[..., Any]] = {}


class Mixed(Intercepted, torch.nn.Parameter):
    """The base's values, and `weight`: what the tasks make of them (of a matrix `turned`: its
    transpose)."""

    weight: Weight
    current: Current
    turned: bool = False
    comes_first = True

    def turn(self) -> Mixed:
        """The transpose, to be multiplied by."""
        base = self.weight.base
        made = (base if self.turned else base.t()).as_subclass(Mixed)
        made.weight, made.current, made.turned = self.weight, self.current, not self.turned
        return made

    def product(
        self, x: torch.Tensor, selection: Selection, *, turned: bool = False
    ) -> torch.Tensor:
        """x Wᵀ for each row's task, or x W."""
        if self.turned != turned:
            return self.weight.linear_turned(x, selection)
        return self.weight.linear(x, selection)

    def full(self, task: int) -> torch.Tensor:
        found = self.weight.full(task)
        return found.t() if self.turned else found

    def refuse_writing(self) -> None:
        """For those who write to memory, past torch."""
        raise written(self.weight.name)

    def __deepcopy__(self, memo: Any) -> Mixed:
        raise UsageError(f"{self.weight.name}: has tasks attached, and is not copied; detach them")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(f"{self.weight.name}: has tasks attached, and is not saved; detach them")

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        handler = HANDLERS.get(func)
        if handler is not None:
            mixed = _first(args, kwargs)
            selection = mixed.current.selection
            if selection is None:
                raise _unnamed(mixed, name_of(func))
            refuse_recording()
            _refuse_hidden(mixed, selection, args)
            return handler(selection, *args, **kwargs)
        name = name_of(func)
        if name == "requires_grad_" or func == _FREEZE:
            _refuse_training(*args, **kwargs)
        if _about(name, func, len(args) + len(kwargs)) or func == _FREEZE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return _otherwise(func, name, args, kwargs)


def _refuse_hidden(mixed: Mixed, selection: Selection, values: Sequence[Any]) -> None:
    """Refuse inputs of which `torch.vmap` hides a dimension: it may be that of the rows."""
    functorch = torch._C._functorch
    if selection.only is not None or functorch.maybe_current_level() is None:
        return
    inner = [value for value in values if isinstance(value, torch.Tensor)]
    while inner := [value for value in inner if functorch.is_functorch_wrapped_tensor(value)]:
        if any(functorch.is_batchedtensor(value) for value in inner):
            raise UsageError(
                f"{mixed.weight.name}: vmap hides a dimension of its inputs, so that rows are "
                "not seen: name one task, or call the layer without vmap"
            )
        inner = [functorch.get_unwrapped(value) for value in inner]


def _refuse_training(mixed: Any, requires_grad: bool = True) -> None:
    if requires_grad:
        raise UsageError(
            f"{mixed.weight.name}: is not trained while tasks are attached; detach them first (an "
            "adapter beside them may be)"
        )


def _otherwise(
    func: Callable[..., Any], name: str, args: Sequence[Any], given: dict[str, Any]
) -> Any:
    """An operation without a way of its own: on whole weights of one task, or as `Rows`."""
    mixed = _first(args, given)
    selection = mixed.current.selection
    if selection is None:
        return _outside(func, name, args, given, mixed)
    refuse_recording()
    if _turns(mixed, name, args, given):
        return mixed.turn()
    if writes(func, name, args, given) is mixed:
        raise written(mixed.weight.name)
    if name in _CASTS and args[0] is mixed and _changes_nothing(func, args, given):
        return mixed
    if selection.only is not None:
        task = selection.only
        return func(*_whole(args, task), **{k: of_task(v, task) for k, v in given.items()})
    _refuse_hidden(mixed, selection, (*args, *given.values()))
    if name == "index_select" and not mixed.weight.positional:
        raise unknown_rows(mixed.weight)
    known = {k: as_rows(v, selection) for k, v in given.items()}
    return apply(func, [as_rows(v, selection) for v in args], known)


def _changes_nothing(
    func: Callable[..., Any], args: Sequence[Any], given: Mapping[str, Any]
) -> bool:
    """Whether a cast is to the dtype and device that a parameter has."""
    before = args[0]
    with torch._C.DisableTorchFunctionSubclass():
        made = func(*args, **given)
    return (made.dtype, made.device) == (before.dtype, before.device)


def _turns(mixed: Mixed, name: str, args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether an operation transposes a matrix."""
    if mixed.weight.base.dim() != 2 or given or args[0] is not mixed:
        return False
    dims = [d % 2 for d in args[1:] if type(d) is int]
    return name in ("T", "mT", "t") or (name == "transpose" and sorted(dims) == [0, 1])


def mixed_of(module: torch.nn.Module) -> list[Mixed]:
    """The parameters of a module, and of those in it, that have tasks."""
    return [value for value in module.parameters() if isinstance(value, Mixed)]


def rows(value: Any, selection: Selection) -> Any:
    """A parameter as each row has it, or a plain tensor where there is one task alone."""
    if not isinstance(value, Mixed):
        return value
    weight = value.weight
    if selection.only is not None:
        return value.full(selection.only)
    if weight.table is not None and not value.turned:
        longest = weight.longest(selection)
        found = weight.table[selection.index]
        return Spread(
            found[..., :longest] if weight.base.dim() == 1 else found, selection.index.dim()
        )
    if value.turned and len(set(weight.lengths)) > 1:
        raise unknown_rows(weight)
    stacked = torch.stack([value.full(task) for task in selection.tasks])
    order = torch.tensor(selection.tasks, device=stacked.device)
    place = torch.searchsorted(order, selection.index.to(stacked.device))
    return Spread(stacked[place], selection.index.dim())


def with_bias(made: torch.Tensor, bias: Any, selection: Selection, dims: int = 0) -> torch.Tensor:
    """A product and its bias, which so many dimensions are behind."""
    return made if bias is None else made + met(rows(bias, selection), made, dims)


def as_rows(value: Any, selection: Selection) -> Any:
    if type(value) in (list, tuple):
        return type(value)(as_rows(inner, selection) for inner in value)
    return rows(value, selection) if isinstance(value, Mixed) else spread_of(value)


def _about(name: str, func: Callable[..., Any], count: int) -> bool:
    if name in _ABOUT:
        return name != "type" or count == 1  # with a dtype it is a cast
    if func.__name__ == "__get__":
        return name not in _VALUES
    return name.startswith(_QUESTIONS)


def _first(args: Sequence[Any], given: Mapping[str, Any]) -> Mixed:
    for value in (*args, *given.values()):
        if isinstance(value, Mixed):
            return value
        if isinstance(value, (list, tuple)):
            for inner in value:
                if isinstance(inner, Mixed):
                    return inner
    raise MismatchError("an operation on weights of many tasks that is not known")


def of_task(value: Any, task: int) -> Any:
    return value.full(task) if isinstance(value, Mixed) else value


def _whole(args: Sequence[Any], task: int) -> list[Any]:
    return [
        type(v)(of_task(inner, task) for inner in v)
        if type(v) in (list, tuple)
        else of_task(v, task)
        for v in args
    ]


def _unnamed(mixed: Mixed, name: str) -> UsageError:
    return UsageError(
        f"{mixed.weight.name}: no tasks are named (for {name}); run the model inside `with "
        "mixed.tasks([...]):`, or detach the tasks to change it"
    )


def _outside(
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    given: Mapping[str, Any],
    mixed: Mixed,
) -> Any:
    """The base's values, for what does not compute an answer from them."""
    if writes(func, name, args, given) is mixed:
        raise written(mixed.weight.name)
    if name not in (*_OUTSIDE, "copy_") and func.__name__ != "__get__":
        raise _unnamed(mixed, name)
    if name == "data":
        return Values.of(mixed, mixed.weight.name)
    with torch._C.DisableTorchFunctionSubclass():
        made = func(*args, **given)
    if isinstance(made, torch.Tensor) and (made.dtype, made.device) != (mixed.dtype, mixed.device):
        raise UsageError(
            f"{mixed.weight.name}: cannot change dtype or device while tasks are attached; "
            "detach them first"
        )
    return made


def unknown_rows(weight: Weight) -> MismatchError:
    return MismatchError(
        f"{weight.name}: a part of it is taken by a layer that this version does not know; "
        "run the tasks one after the other (randes_cli.Pool)"
    )
