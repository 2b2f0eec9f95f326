"""Sees that an attached model is given the rows that tasks were named for.

Rows that become several inside of a model keep their order, and so do beams. What a library does to
a batch before it calls the model need not: guidance puts all rows once more behind themselves, a
pipeline asks row by row. Layers could not tell, and would answer a row as another's task.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial, wraps
from types import FrameType
from typing import Any

import torch
from torch import nn

from randes_cli.errors import UsageError
from randes_cli.live.batch.selection import Current, refuse_recording
from randes_cli.live.replaced import replace

#: Inputs that have a row for each of the batch, in every model that takes them.
_BY_ROWS = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
#: Where transformers makes a row several, beside one another, and how many.
_EXPANDS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "_expand_variables_for_generation": lambda given: (
        given["generation_config"].num_return_sequences
    ),
    "_expand_inputs_for_generation": lambda given: given["expand_size"],
}
#: What is asked of a model past its forward, where it does not generate.
_ASKED = re.compile(r"get_\w+_features|encode_(image|text)|forward_features")
#: Who calls a model, and how many calls away at most.
_PIPELINES, _CALLS = re.compile(r"transformers\.pipelines\."), 40
#: Parts of models that guidance asks past the model's own forward.
_PAST = {"janus": "model.language_model", "vibevoice": "model.diffusion_head"}


def watch_rows(model: nn.Module, current: Current, undo: ExitStack) -> None:
    """Refuse batches of other rows than those that tasks are named for."""
    generating = [module for module in model.modules() if hasattr(module, "generate")]
    for module in dict.fromkeys([model, *generating]):
        copies: dict[str, int] = {}
        for name in filter(partial(hasattr, module), _EXPANDS):
            replace(module, name, partial(_expand, getattr(module, name), name, copies), undo)
        if module in generating:
            generate: Any = module.generate
            replace(module, "generate", partial(_generate, generate, copies), undo)
        for asked in (module, *_past(module)):
            check = partial(_check, current, copies)
            undo.callback(asked.register_forward_pre_hook(check, with_kwargs=True).remove)
    _watch_past(model, current, undo)


def one_at_a_time(model: nn.Module, current: Current, undo: ExitStack) -> None:
    """Have threads that share a block run the model, and its parts alone, one after another."""
    begin, end = partial(_begin, current), partial(_end, current)
    for part in dict.fromkeys([model, *model.children()]):
        undo.callback(part.register_forward_pre_hook(begin, prepend=True).remove)
        undo.callback(part.register_forward_hook(end, always_call=True).remove)


def _begin(current: Current, *_: Any) -> None:
    if not torch.compiler.is_compiling():
        current.enter()


def _end(current: Current, *_: Any) -> None:
    if not torch.compiler.is_compiling():
        current.leave()


def _watch_past(model: nn.Module, current: Current, undo: ExitStack) -> None:
    """Watch what is asked past a model's forward."""
    inside: list[bool] = []

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def ask(*args: Any, **named: Any) -> Any:
            values = (v for v in (*args, *named.values()) if isinstance(v, torch.Tensor))
            first, selection = next(values, None), current.selection
            several = selection is not None and selection.only is None and not inside
            rows = first is not None and first.dim() > 1 and not _tokens(model, first)
            if selection and several and first is not None and rows:
                _count(model, first.shape[0], selection.rows, (selection.rows,))
            return method(*args, **named)

        return ask

    several = getattr(getattr(model, "config", None), "model_type", "").startswith("owl")
    known = not hasattr(model, "generate") and not several  # of OWL's texts a row has several
    names = [name for name in dir(type(model)) if known and _ASKED.fullmatch(name)]
    for name in names:
        replace(model, name, watched(getattr(model, name)), undo)
    if names:
        undo.callback(model.register_forward_pre_hook(lambda *_: inside.append(True)).remove)
        after = model.register_forward_hook(lambda *_: inside.clear(), always_call=True)
        undo.callback(after.remove)


def _past(module: nn.Module) -> Iterator[nn.Module]:
    path = _PAST.get(getattr(getattr(module, "config", None), "model_type", ""))
    if path is not None and hasattr(module, "generate"):
        yield module.get_submodule(path)


def _generate(
    generate: Callable[..., Any], copies: dict[str, int], *given: Any, **named: Any
) -> Any:
    """A generation, after which rows are what they were before it."""
    before = dict(copies)
    try:
        return generate(*given, **named)
    finally:
        copies.clear()
        copies.update(before)


def _expand(
    expand: Callable[..., Any], name: str, copies: dict[str, int], *given: Any, **named: Any
) -> Any:
    """What makes rows several for a generation, and a note of how many."""
    copies[name] = _EXPANDS[name](named) or 1
    return expand(*given, **named)


def _check(
    current: Current, copies: dict[str, int], model: nn.Module, args: Any, named: dict[str, Any]
) -> None:
    selection = current.selection
    if torch.compiler.is_exporting() or not torch.compiler.is_compiling():
        _refuse(current)
    if selection is None or selection.only is not None:
        return
    if not torch.compiler.is_compiling():
        _refuse_pieces()
    wanted, several = selection.rows, 1
    for count in copies.values():
        several *= count
    lines = (wanted, wanted * several, wanted * several * _lines(model, named, wanted))
    for count in _rows(model, args, named):
        _count(model, count, wanted, lines)


def _count(model: nn.Module, count: int, wanted: int, lines: Sequence[int]) -> None:
    """Refuse so many rows; layers see to other numbers themselves."""
    if count not in lines and (count == 1 or count % wanted == 0):
        raise UsageError(
            f"{type(model).__name__} is given a batch of {count}, and tasks are named for "
            f"{wanted}: name one for each row that it is given (guidance puts all rows behind "
            "themselves, `names * 2`; a pipeline without batch_size asks one by one)"
        )


def _lines(model: nn.Module, named: Mapping[str, Any], rows: int) -> int:
    """How many lines, one after another, some models take for each row.

    MusicGen takes one a codebook, X-CLIP's vision one a picture of a film, OWL one for each text
    that is sought in a row's picture.
    """
    config = getattr(model, "config", None)
    kind = str(getattr(config, "model_type", ""))
    if kind.startswith("musicgen"):
        return getattr(getattr(config, "decoder", config), "num_codebooks", 1)
    if kind == "xclip_vision_model":
        return getattr(config, "num_frames", 1)
    pictures, texts = named.get("pixel_values"), named.get("input_ids")
    if kind in ("owlvit", "owlv2") and pictures is not None and texts is not None:
        return len(texts) // rows if len(pictures) == rows else 1
    return 1


def _refuse(current: Current) -> None:
    """Answer nobody who is in no block, nor what records answers."""
    refuse_recording()
    here = current.thread == threading.get_ident()
    if here and asyncio._get_running_loop() is not None and not current.inside():
        raise UsageError(
            "no tasks are named here: the block that is open is another task's of asyncio"
        )


def _refuse_pieces() -> None:
    """Refuse batches of a pipeline that makes several of an input, as of a long text or of labels.

    It tells its own `_forward` alone which of them are an input's last.
    """
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_CALLS):
        if frame is None:
            return
        if frame.f_code.co_name == "_forward" and _PIPELINES.match(
            frame.f_globals.get("__name__", "")
        ):
            values = frame.f_locals
            given = (v for v in values.values() if isinstance(v, Mapping) and "is_last" in v)
            last = values.get("is_last", next(given, {"is_last": True})["is_last"])
            if not torch.as_tensor(last).all():
                raise UsageError(
                    "the pipeline makes several rows of an input (pieces of what is long, one for "
                    "each label), and tasks are named for inputs: ask one task at a time"
                )
            return
        frame = frame.f_back


def _rows(model: nn.Module, args: Sequence[Any], named: Mapping[str, Any]) -> Iterator[int]:
    """How many rows a model is given, by each input that tells."""
    found = [named[name] for name in _BY_ROWS if named.get(name) is not None]
    if not (args or found):
        main = getattr(model, "main_input_name", None)
        found = [named.get(main) if isinstance(main, str) else None]
        found += [named.get(name) for name in ("sample", "hidden_states", "x")]
    for value in (*args[:1], *found):
        if isinstance(value, torch.Tensor) and value.dim() and not _tokens(model, value):
            yield value.shape[0]
        elif isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            yield len(value)


def _tokens(model: nn.Module, value: torch.Tensor) -> bool:
    """Whether an input may be vectors of the batch's tokens or patches, one after the other."""
    guided = any(kind.__module__.startswith("diffusers.") for kind in type(model).__mro__)
    return value.dim() == 2 and value.is_floating_point() and not guided
