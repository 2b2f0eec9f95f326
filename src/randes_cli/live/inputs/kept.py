"""Tokens whose answers alone are wanted (`logits_to_keep`), where each has its own task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.parameters.intercepted import Intercepted


class Kept(Intercepted):
    """Places of tokens. From where a model takes these of its tokens, theirs are the tasks."""

    current: Current

    @classmethod
    def answer(cls, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What `func` gives of plain places."""
        kept = next((v for v in _flat(args) if isinstance(v, Kept)), None)
        given = {name: _plain(value) for name, value in kwargs.items()}
        made = func(*[_plain(value) for value in args], **given)
        if kept is not None and func is torch.Tensor.__getitem__ and args[0] is not kept:
            _follow(kept, args[0], args[1])
        return made


def _follow(kept: Kept, tokens: torch.Tensor, item: Any) -> None:
    selection = kept.current.selection
    items = item if isinstance(item, tuple) else (item,)
    if selection is None or len(items) < 2 or items[1] is not kept:
        return
    if tuple(tokens.shape[:2]) == tuple(selection.index.shape):
        places = _plain(kept).cpu()
        numbers = torch.tensor(selection.host).reshape(selection.index.shape)[:, places]
        kept.current.selection = Selection.of(numbers, selection.index.device)


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value.as_subclass(torch.Tensor) if isinstance(value, Kept) else value


def _end(current: Current, whole: Selection | None) -> None:
    """Let all tokens have their tasks again, before another thread's run."""
    current.selection = whole
    if not torch.compiler.is_compiling():
        current.leave()


@contextmanager
def kept_tokens(model: nn.Module, current: Current) -> Iterator[None]:
    """In the block `logits_to_keep` of the model's calls tells which tokens its head is given."""

    def before(_: nn.Module, args: Any, given: dict[str, Any]) -> Any:
        if not torch.compiler.is_compiling():
            current.enter()
        selection, asked = current.selection, given.get("logits_to_keep")
        if selection is None or selection.index.dim() != 2:
            return None
        if isinstance(asked, int) and asked:
            count = selection.index.shape[1]
            asked = torch.arange(max(0, count - asked), count, device=selection.index.device)
        if not isinstance(asked, torch.Tensor) or asked.dim() != 1:
            return None
        kept = asked.as_subclass(Kept)
        kept.current = current
        return args, {**given, "logits_to_keep": kept}

    whole = current.selection
    with (
        model.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
        model.register_forward_hook(lambda *_: _end(current, whole), always_call=True),
    ):
        yield
