"""Pictures, films and sounds among the words of a batch, which rows have different numbers of.

Models pack them, and their encoders then see no rows. Whose each is, is known by the tokens that it
takes the place of. Where rows have unequal ones, or an encoder packs what had rows, all are encoded
for each task of the batch, and each keeps those of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from randes_cli.errors import MismatchError, UsageError
from randes_cli.live.batch.kind import KINDS, marks_of, tensors_of
from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.parameters.mixed_parameter import mixed_of
from randes_cli.live.parameters.rows import Rows
from randes_cli.live.replaced import replace

#: What models take of what was encoded.
_TAKEN = ("pooler_output", "deepstack_features")
#: Where transformers' `generate` has pictures encoded.
_AHEAD = "_maybe_prepare_encoder_kwargs_for_generation"

_ROUNDING = {torch.float16: 2e-2, torch.bfloat16: 5e-2}


def watch_features(model: nn.Module, current: Current, undo: ExitStack) -> None:
    """Let methods that encode pictures and sounds for words ask whose they are."""
    found = [
        (module, name, marks[0])
        for module in model.modules()
        for kind in KINDS
        for name in (f"get_{kind}_features", f"get_{kind}_tokens")
        if callable(getattr(module, name, None))
        and (marks := marks_of(module, kind))
        and mixed_of(module)
    ]
    for module, name, mark in found:
        replace(module, name, _Encoder(getattr(module, name), current, mark), undo)
    if not found:
        return
    before = model.register_forward_pre_hook(partial(_before, current), with_kwargs=True)
    undo.callback(before.remove)
    undo.callback(model.register_forward_hook(partial(_after, current), always_call=True).remove)
    if hasattr(model, _AHEAD):
        replace(model, _AHEAD, partial(_ahead, current, getattr(model, _AHEAD)), undo)


def _ahead(current: Current, encode: Any, inputs: Any, given: dict[str, Any], *more: Any) -> Any:
    """`generate` encodes pictures before it runs the model."""
    current.words = _words(given.get("input_ids", inputs))
    try:
        return encode(inputs, given, *more)
    finally:
        current.words = None


def _before(current: Current, model: nn.Module, args: Any, given: dict[str, Any]) -> None:
    if not torch.compiler.is_compiling():
        current.words = _words(given.get("input_ids", args[0] if args else None))


def _after(current: Current, *_: Any) -> None:
    if not torch.compiler.is_compiling():
        current.words = None


def _words(value: Any) -> torch.Tensor | None:
    if not isinstance(value, torch.Tensor) or value.dim() != 2 or value.is_floating_point():
        return None
    return value


class _Encoder:
    """A method that encodes, for rows of several tasks.

    Attributes:
        packs: whether it was seen to lose the rows of what has one for each.
        checked: shapes of inputs for which it was seen to keep them.
    """

    def __init__(self, encode: Callable[..., Any], current: Current, mark: int) -> None:
        self.encode, self.current, self.mark = encode, current, mark
        self.packs = False
        self.checked: set[Any] = set()
        self.__signature__ = inspect.signature(encode)  # transformers asks what it takes

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        selection, words = self.current.selection, self.current.words
        if selection is None or selection.only is not None or words is None:
            return self.encode(*inputs, **more)
        marked = words == self.mark
        if not bool(marked.any()):
            return self.encode(*inputs, **more)
        given = [tensor for _, tensor in tensors_of((inputs, more))]
        together = None
        kind = tuple(tensor.shape for tensor in given)
        if not self.packs and _by_rows(marked, given):
            together = self._together(inputs, more)
            if together is not None and kind in self.checked:
                return together
        owners = selection.along(words)
        owners = owners if owners.dim() == 2 else owners[:, None].expand(words.shape)
        try:
            apart = self._by_task(selection, owners[marked], inputs, more)
        except MismatchError:
            if together is None:
                raise
            return together
        if together is not None and _alike(_main(together), _main(apart)):
            self.checked.add(kind)
            return together
        self.packs |= together is not None
        return apart

    def _together(self, inputs: Any, more: Any) -> Any:
        """As if rows were kept; None where they are not."""
        try:
            found = self.encode(*inputs, **more)
            if not any(isinstance(t, Rows) for _, t in tensors_of(found)):
                return found
        except (MismatchError, UsageError, RuntimeError):
            pass
        self.packs = True
        return None

    def _by_task(self, selection: Selection, owners: torch.Tensor, inputs: Any, more: Any) -> Any:
        tasks, made = sorted(set(owners.tolist())), []
        try:
            for task in tasks:
                self.current.selection = Selection.of([task] * selection.rows, owners.device)
                made.append(self.encode(*inputs, **more))
        finally:
            self.current.selection = selection
        places = torch.searchsorted(torch.tensor(tasks, device=owners.device), owners)
        found = _chosen(made, places)
        if not _whole(_main(found)):
            raise MismatchError(
                "features of pictures or sounds are not as many as the tokens in their places; run "
                "the tasks one after the other (randes_cli.Pool)"
            )
        return found


def _main(found: Any) -> Any:
    if not isinstance(found, Mapping):
        return found
    return [found[name] for name in _TAKEN if name in found] or None


def _whole(found: Any) -> bool:
    """Whether all of it came by tokens."""
    if isinstance(found, list | tuple):
        return all(map(_whole, found))
    return found is not None


def _alike(first: Any, second: Any) -> bool:
    """Whether two features are the same but for rounding."""
    pairs = list(zip(tensors_of(first), tensors_of(second), strict=False))
    return bool(pairs) and all(_near(one, other) for (_, one), (_, other) in pairs)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or not one.numel():
        return one.shape == other.shape
    rounding = _ROUNDING.get(one.dtype, 1e-3)
    return bool((one - other).abs().max() <= rounding * other.abs().max())


def _by_rows(marked: torch.Tensor, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether all rows have as many pieces, of pictures of the same sizes."""
    rows = len(marked)
    counts = marked.reshape(rows, -1).sum(1)
    sizes = [t for t in inputs if not t.is_floating_point() and t.dim() > 1 and t.shape[-1] < 4]
    alike = all(bool((t == t[:1]).all()) for t in sizes)
    return alike and bool((counts == counts[0]).all()) and all(len(t) % rows == 0 for t in inputs)


def _chosen(made: Sequence[Any], places: torch.Tensor) -> Any:
    """Of what was made for each task, line by line (or picture by picture) the owner's.

    None for what does not come by tokens.
    """
    first = made[0]
    if isinstance(first, torch.Tensor):
        return _lines(made, places)
    if isinstance(first, Mapping):
        kept = {key: _chosen([one[key] for one in made], places) for key in first}
        return type(first)(**kept) if hasattr(first, "to_tuple") else kept
    if isinstance(first, list | tuple):
        parts = _parts(first, places)
        return type(first)(_chosen([one[n] for one in made], part) for n, part in enumerate(parts))
    return first


def _parts(pictures: Sequence[Any], places: torch.Tensor) -> list[torch.Tensor]:
    """The places of each of several pictures; of what is no such list all."""
    known = all(isinstance(one, torch.Tensor) and one.dim() for one in pictures)
    for inside in (slice(None, -1), slice(1, None)):  # a line for each token, or a column
        sizes = [one.shape[inside].numel() for one in pictures] if known else []
        if sizes and sum(sizes) == len(places):
            return list(torch.split(places, sizes))
    return [places] * len(pictures)


def _lines(made: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor | None:
    """Tensors of which as many leading (or last) dimensions are lines as there are tokens."""
    shape = made[0].shape
    for dims in (*(shape[:end] for end in range(1, len(shape) + 1)), shape[1:]):
        if dims.numel() == len(places):
            lasting = [1] * (len(shape) - len(dims)) if dims == shape[: len(dims)] else []
            of = places.reshape(*dims, *lasting)
            total = made[0].clone()
            for number, one in enumerate(made):
                total = torch.where(of == number, one, total)
            return total
    return None
