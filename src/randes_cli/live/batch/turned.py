"""Whether the rows of a batch stay rows inside a model, tried where it is run for the first time.

Layers are told rows from the first dimension of their inputs. Models that put time first, pack
pictures of several sizes, or mix their rows up would be answered as other tasks in silence. So a
batch of a kind that was not met before is run twice: once with its rows, and their tasks, turned
by one place. What does not turn with them, of the inputs of layers and of the answers, does not
come by rows. What all rows share, as places, is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from randes_cli.errors import MismatchError, UsageError
from randes_cli.live.batch.kind import (
    Unturnable,
    has_rows,
    kind_of,
    packed_unequally,
    turned,
)
from randes_cli.live.batch.lines import Lines
from randes_cli.live.batch.selection import Current, Selection

#: A batch whose rows are alike tells nothing: of a kind so many are tried.
MOST_TRIES = 3
#: Kinds that are remembered: each size of pictures is one.
MOST_KINDS = 2**12
#: Weights without rows that are sought: one is found at a time.
MOST_SHARED = 100


class _Run(NamedTuple):
    """The inputs of layers, in their order, and the answer."""

    layers: list[tuple[Lines, Any]]
    answer: Any


class _Pending(NamedTuple):
    """What is known when the batch itself is run: its kind, what was selected, the turned run.

    Attributes:
        has_rows: whether an input has a row for each task.
    """

    kind: Any
    before: Selection
    seen: Selection
    turn: _Run
    random: torch.Tensor
    has_rows: bool


class Turning:
    """Runs an attached model's batches of a new kind twice. Raises MismatchError from the model.

    Attributes:
        known: how often a kind of batch was tried.
    """

    def __init__(self, model: nn.Module, current: Current, undo: ExitStack) -> None:
        self.current = current
        self.known: dict[Any, int] = {}
        self._learned = False
        self._pending: _Pending | None = None
        undo.callback(model.register_forward_pre_hook(self._before, with_kwargs=True).remove)
        undo.callback(model.register_forward_hook(self._after, always_call=True).remove)

    def _before(self, model: nn.Module, args: Any, given: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        self._pending = None  # of a batch that was interrupted
        selection = self.current.selection
        if selection is None or selection.only is not None or selection.rows == 1:
            return
        kind = kind_of(model, args, given, selection.rows)
        if self.known.get(kind, 0) >= MOST_TRIES:
            return
        device = selection.index.device
        if packed_unequally(model, args, given, selection.rows):
            return
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                run = self._turn if self._learned else self._learn
                turn = run(model, args, given, selection)
        except Unturnable:
            return
        self.current.selection, random = selection, _random(device)
        if turn.answer is not None:
            seen = self.current.selection = replace(selection, seen=[])
            whole = has_rows((args, given), selection.rows)
            self._pending = _Pending(kind, selection, seen, turn, random, whole)

    def _learn(
        self, model: nn.Module, args: Any, given: dict[str, Any], selection: Selection
    ) -> _Run:
        """The turned run, once it is noted which weights' inputs have no rows, as distances of
        places have none."""
        for _ in range(MOST_SHARED):
            run, turn = (self._turn(model, args, given, selection, by=by) for by in (0, 1))
            if not _shared_noted(run.layers, turn.layers, selection.rows):
                break
        self._learned = True
        return turn

    def _turn(
        self, model: nn.Module, args: Any, given: dict[str, Any], selection: Selection, by: int = 1
    ) -> _Run:
        """A run of turned rows; without an answer where it fails, as the other one will."""
        rows, words = selection.rows, self.current.words
        more, inputs = turned(args, rows, by=by), turned(given, rows, by=by)
        numbers = torch.tensor(selection.host).reshape(selection.index.shape)
        turn = Selection.of(numbers.roll(by, 0), selection.index.device)
        self.current.selection = turn = replace(turn, seen=[])
        self.current.words = turned(words, rows, by=by)
        answer = None
        try:
            with torch.no_grad():
                answer = model.forward(*more, **inputs)
        except Exception:  # the batch itself fails alike, and says why
            answer = None
        finally:
            self.current.words, self.current.selection = words, selection
        return _Run(turn.seen or [], answer)

    def _after(self, model: nn.Module, args: Any, answer: Any) -> None:
        if self._pending is None or torch.compiler.is_compiling():
            return
        pending, self._pending = self._pending, None
        if self.current.selection is pending.seen:
            self.current.selection = pending.before
        if answer is None:  # it failed
            return
        if not pending.has_rows:
            raise UsageError(
                f"{type(model).__name__}: no input has the {pending.before.rows} rows that tasks "
                "are named for (an input without a batch?): name a task for each row"
            )
        tells = True
        device = pending.before.index.device
        if torch.equal(pending.random, _random(device)):  # noise would not turn
            run = _Run(pending.seen.seen or [], answer)
            tells = _compared(type(model).__name__, run, pending.turn, pending.before.rows)
        tries = self.known.get(pending.kind, 0)
        self.known[pending.kind] = MOST_TRIES if tells else tries + 1
        if len(self.known) > MOST_KINDS:
            del self.known[next(iter(self.known))]


def _random(device: torch.device) -> torch.Tensor:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return torch.cat([torch.get_rng_state(), *cuda])


def _shared_noted(first: list[Any], second: list[Any], rows: int) -> bool:
    """Mark a weight whose inputs are the same whatever the rows. Returns whether there is one."""
    for (one, weight), (other, _) in zip(first, second, strict=False):
        if not one.is_shared and not one.turns_into(other, rows):
            shared = weight is not None and not weight.shared and one.is_same(other)
            if shared:
                weight.shared = True
            return shared
    return False


def _compared(name: str, run: _Run, turn: _Run, rows: int) -> bool:
    """Whether the rows tell anything. Raises MismatchError where they do not turn."""
    if len(run.layers) == len(turn.layers):
        for (one, _), (other, _) in zip(run.layers, turn.layers, strict=True):
            alike = one.values.shape == other.values.shape
            turns = one.is_same(other) if one.is_shared else one.turns_into(other, rows)
            if alike and not turns:
                raise _mixed_up(name, "the inputs of a layer")
    return _answers_turn(run.answer, turn.answer, rows, name)


def _answers_turn(first: Any, second: Any, rows: int, name: str) -> bool:
    """Whether answers tell rows apart. Raises MismatchError where they do not turn."""
    if isinstance(first, torch.Tensor):
        alike = isinstance(second, torch.Tensor) and first.shape == second.shape
        fits = alike and first.is_floating_point() and first.numel() > 0 and first.dim() > 0
        return fits and _tensor_turns(first, second, rows, name)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        pairs = [(first[key], second[key]) for key in first if key in second]
        return any([_answers_turn(*pair, rows, name) for pair in pairs])  # noqa: C419 (all are asked)
    if not isinstance(first, list | tuple) or len(first) != len(second):
        return False
    places = len(first) // rows
    if places and _same(second, [*first[-places:], *first[:-places]]):  # one for each picture
        return not _same(first, second)
    pairs = list(zip(first, second, strict=True))
    return any([_answers_turn(*pair, rows, name) for pair in pairs])  # noqa: C419


def _same(first: Any, second: Any) -> bool:
    pairs = list(zip(first, second, strict=True))
    known = all(isinstance(v, torch.Tensor) and v.dim() for pair in pairs for v in pair)
    return known and all(
        a.shape == b.shape and Lines.of(a).is_same(Lines.of(b), 1) for a, b in pairs
    )


def _tensor_turns(first: torch.Tensor, second: torch.Tensor, rows: int, name: str) -> bool:
    if len(first) == rows:
        dims = [dim for dim, size in enumerate(first.shape) if size and size % rows == 0]
    else:  # layers of states, or time, come before it, where these are no lines of beams
        before = first.dim() > 2 and first.shape[1] == rows and len(first) % rows
        dims = [1] if before else []
    tells, by_rows = False, not dims
    for dim in dims:
        one, other = (Lines.of(v.movedim(dim, 0)) for v in (first, second))
        same = one.is_same(other, rows)
        by_rows |= same or one.turns_into(other, rows)
        tells |= not same
    if not by_rows and first.dim() == 2 and first.shape[1] % rows == 0:  # pictures by words
        mine = (v.reshape(rows, rows, -1).diagonal().T for v in (first, second))
        one, other = map(Lines.of, mine)
        by_rows = one.turns_into(other, rows)
    if not by_rows:
        raise _mixed_up(name, "its answers")
    return tells


def _mixed_up(name: str, what: str) -> MismatchError:
    return MismatchError(
        f"{name}: {what} do not come by rows of the batch (time comes before it, pictures of "
        "several sizes are packed, or rows are mixed), and would be answered as other tasks; run "
        "the tasks one after the other (randes_cli.Pool)"
    )
