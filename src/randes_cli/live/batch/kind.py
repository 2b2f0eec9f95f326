"""Batches whose rows are turned by one place, and what tells one kind of batch from another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

#: What there may be among words, each with a token that stands for a piece of it.
KINDS = ("image", "video", "audio")
#: Inputs of at most so many numbers say how others are packed: sizes of pictures.
_FEW = 256
#: Inputs that say places of tokens, the same for all rows, where they have one dimension.
_PLACES = ("cache_position", "position_ids", "logits_to_keep")
#: Inputs, by name or place, that say which tokens a model goes on with.
_CHOOSES = re.compile(r"label|masked|[1-9][0-9]*")
#: What has no rows.
_PLAIN = (bool, int, float, str, type(None), torch.Size, torch.dtype, torch.device)


class Unturnable(Exception):
    """A batch that cannot be run twice, as it goes on from what a cache has."""


def turned(value: Any, rows: int, name: str = "", *, by: int = 1) -> Any:
    """The same with rows turned by so many places; what has no rows as it is, caches copied."""
    if isinstance(value, torch.Tensor):
        dim = int(name == "position_ids" and value.dim() == 3)  # of the axes of pictures
        size = value.shape[dim] if value.dim() else 0
        if not size or size % rows or (value.dim() == 1 and name in _PLACES):
            return value
        return value.roll(by * (size // rows), dim)
    if name == "mm_encoder_outputs" and value:
        raise Unturnable
    if isinstance(value, Mapping):
        made = {key: turned(inner, rows, key, by=by) for key, inner in value.items()}
        return type(value)(**made) if hasattr(value, "to_tuple") else made
    if type(value) in (list, tuple):
        by_row = type(value) is list and len(value) == rows and not _have_rows(value, rows)
        at = len(value) - by
        inner = [*value[at:], *value[:at]] if by_row else [turned(v, rows, by=by) for v in value]
        return type(value)(inner)
    if hasattr(value, "get_seq_length"):
        if _begun(value):
            raise Unturnable
        return deepcopy(value)
    if isinstance(value, _PLAIN):
        return value
    raise Unturnable  # a packed sequence, say


def has_rows(value: Any, rows: int) -> bool:
    """Whether a batch has an input for each row, if it has any tensor."""
    tensors = list(tensors_of(value))
    by_row = any(len(tensor) % rows == 0 for _, tensor in tensors)
    return not tensors or by_row or _has_list(value, rows)


def _has_list(value: Any, rows: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple):
        return False
    return (type(value) is list and len(value) == rows) or any(_has_list(v, rows) for v in inner)


def packed_unequally(model: nn.Module, args: Any, given: Mapping[str, Any], rows: int) -> bool:
    """Whether rows have unequally many pieces of pictures, films or sounds, one behind the other.

    Which of them are whose is then not known here, and they cannot be turned.
    """
    words = given.get("input_ids", args[0] if args else None)
    if not isinstance(words, torch.Tensor) or words.dim() != 2 or len(words) != rows:
        return False
    marks = [mark for kind in KINDS for mark in marks_of(model, kind)]
    counts = [torch.eq(words, mark).sum(1) for mark in marks]
    unlike = any(bool((count != count[0]).any()) for count in counts)
    return unlike and any(_packed(tensor, rows) for _, tensor in tensors_of((args, given)))


def marks_of(module: nn.Module, kind: str) -> list[int]:
    """The token that stands for a piece of a picture, a film or a sound."""
    config = getattr(module, "config", None)
    found = [getattr(config, f"{kind}_token_{how}", None) for how in ("id", "index")]
    return [mark for mark in found if type(mark) is int]


def _packed(tensor: torch.Tensor, rows: int) -> bool:
    """Whether a tensor has no row for each of the batch, or says sizes of pictures."""
    sizes = tensor.dim() == 2 and tensor.shape[1] < 4 and not tensor.is_floating_point()
    return sizes or (tensor.is_floating_point() and tensor.dim() > 1 and len(tensor) != rows)


def _begun(cache: Any) -> bool:
    """Whether a cache has tokens; states of Mamba do not say."""
    try:
        return bool(cache.get_seq_length())
    except ValueError:
        return True


def _have_rows(values: Any, rows: int) -> bool:
    """Whether each of several values has all rows, rather than one row each."""
    tensors = [v for v in values if isinstance(v, torch.Tensor) and v.dim()]
    return len(tensors) == len(values) and all(len(v) and len(v) % rows == 0 for v in tensors)


def kind_of(model: nn.Module, args: Any, given: Mapping[str, Any], rows: int) -> Any:
    """What of a batch decides how its rows lie: its inputs, and how pictures are packed."""
    flat = list(tensors_of((args, given)))
    made: list[Any] = [rows]
    several = any(t.is_floating_point() and t.dim() > 1 for _, t in flat)
    words = any(name.endswith("input_ids") for name, _ in flat)
    for name, tensor in flat:
        sizes = [size == rows for size in tensor.shape]
        made.append((name, tuple(sizes), tensor.is_floating_point()))
        if (len(tensor) != rows and tensor.is_floating_point()) or (several and words):
            made.append(tuple(tensor.shape))
        if several and name.endswith("input_ids"):
            made.append(_marks(model, tensor))
        elif several and not tensor.is_floating_point() and tensor.numel() <= _FEW:
            made.append(tuple(tensor.reshape(-1).tolist()))
        if _CHOOSES.search(name) and len(tensor) == rows and not tensor.is_floating_point():
            made.append(_chosen(model, tensor))
    return tuple(made)


def _chosen(model: nn.Module, choice: torch.Tensor) -> Any:
    """How many tokens of each row are labelled or masked: a model may go on with these alone."""
    if choice.dtype == torch.bool:
        kept = choice
    else:
        ignored = _said(model, "ignore_index")
        kept = ~torch.isin(choice, torch.tensor([-100, *ignored], device=choice.device))
    return tuple(kept.reshape(len(choice), -1).sum(-1).tolist())


def _marks(model: nn.Module, ids: torch.Tensor) -> Any:
    """How often each row has each of the tokens that stand for pictures and sounds."""
    marks = _said(model, "token_id", "token_index")
    return tuple(tuple((ids == mark).sum(-1).reshape(-1).tolist()) for mark in marks)


def _said(model: nn.Module, *ends: str) -> list[int]:
    """Numbers of a model's config, by the ends of their names."""
    config = getattr(model, "config", None)
    known = vars(config).items() if config is not None else ()
    return [value for name, value in known if name.endswith(ends) and type(value) is int]


def tensors_of(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a batch, by name, but for single numbers."""
    if isinstance(value, torch.Tensor) and value.dim():
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors_of(inner, str(key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from tensors_of(inner, name or str(place))
