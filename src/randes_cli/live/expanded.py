"""Batches that are given to a model with several lines for each row that has a task.

`generate` repeats each row where it stands, for beams and for several answers. Guidance puts a copy
of the whole batch behind it, as pipelines of diffusers do: what lies there twice shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from randes_cli.errors import UsageError
from randes_cli.live.batch_kind import tensors_of
from randes_cli.live.selection import Current, Selection

_EXPAND = "_expand_inputs_for_generation"


class Expanding:
    """Tells an attached model which of its lines are whose."""

    def __init__(self, model: nn.Module, current: Current) -> None:
        self.model, self.current = model, current
        self._before: Selection | None = None
        if hasattr(model, _EXPAND):
            model.__dict__[_EXPAND] = partial(self._expand, getattr(model, _EXPAND))
        self._hooks = [
            model.register_forward_pre_hook(self._enter, with_kwargs=True),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def release(self) -> None:
        self.model.__dict__.pop(_EXPAND, None)
        for hook in self._hooks:
            hook.remove()

    def _expand(self, expand: Callable[..., Any], expand_size: int = 1, **given: Any) -> Any:
        self.current.times.add(expand_size)
        return expand(expand_size=expand_size, **given)

    def _enter(self, model: nn.Module, args: Any, given: dict[str, Any]) -> None:
        selection = self.current.selection
        if torch.compiler.is_compiling() or selection is None or selection.only is not None:
            return
        words = given.get("input_ids", args[0] if args else None)
        self.current.words = words if _is_words(words) else None
        if selection.index.dim() == 1:
            times = _times([t for _, t in tensors_of((args, given))], selection, self.current.times)
            if times is not None:
                self._before = selection
                self.current.selection = _repeated(selection, *times)

    def _leave(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            self.current.words = None
        if self._before is not None:
            self.current.selection, self._before = self._before, None


def _is_words(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 2 and not value.is_floating_point()


def _times(
    tensors: list[torch.Tensor], selection: Selection, known: set[int]
) -> tuple[int, int] | None:
    """How often the batch is repeated whole, and each of its rows in that; None: never, or as said.

    Raises UsageError where nothing tells.
    """
    rows = selection.rows
    lengths = {len(tensor) for tensor in tensors}
    if lengths & {rows * times for times in known} or lengths <= {1}:
        return None
    several = sorted(n // rows for n in lengths if n % rows == 0)
    lines = [t for t in tensors if several and len(t) == rows * several[0]]
    if not lines:
        return None  # layers refuse it
    for whole in range(several[0], 1, -1):
        if several[0] % whole == 0 and any(map(partial(_is_copies, whole=whole), lines)):
            return whole, several[0] // whole
    if any(_is_copies(_exchanged(t, rows), whole=several[0]) for t in lines):
        return None
    raise UsageError(
        f"the batch names {rows} tasks, and the model is given {len(lines[0])} lines: name a task "
        "for each of them, in their order (guidance puts the batch twice)"
    )


def _is_copies(lines: torch.Tensor, whole: int) -> bool:
    """Whether lines that differ are there `whole` times, one copy after the other."""
    parts = lines.reshape(whole, len(lines) // whole, -1)
    return bool((parts == parts[:1]).all()) and bool((parts[0] != parts[0, :1]).any())


def _exchanged(lines: torch.Tensor, rows: int) -> torch.Tensor:
    """The first line of each row, then the second ones …"""
    return lines.reshape(rows, -1, *lines.shape[1:]).transpose(0, 1).flatten(0, 1)


def _repeated(selection: Selection, whole: int, each: int) -> Selection:
    key = ("repeated", whole, each)
    if key not in selection.known:
        host = torch.tensor(selection.host).repeat_interleave(each).repeat(whole)
        selection.known[key] = Selection.of(host, selection.index.device)
    found: Selection = selection.known[key]
    return found
