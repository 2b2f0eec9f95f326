"""`attach`: one model that answers each row of a batch as its own task would."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from randes_cli.api import Bank
from randes_cli.errors import MissingError, UsageError
from randes_cli.files.nearest import no_task
from randes_cli.live.attaching import Reading, Slot, slots_of, start, weights
from randes_cli.live.batch.order import kept_order
from randes_cli.live.batch.rows import one_at_a_time
from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.batch.turned import Turning
from randes_cli.live.guard import guard
from randes_cli.live.inputs.continuous import Batching
from randes_cli.live.inputs.features import watch_features
from randes_cli.live.inputs.kept import kept_tokens
from randes_cli.live.layers.operations import mixed_parameter
from randes_cli.live.layers.special import by_task, special_layers
from randes_cli.live.layers.time_first import refuse_known
from randes_cli.live.lazy import opened
from randes_cli.live.matching.inside import PartsWarning, other_parts
from randes_cli.live.matching.tied import untied
from randes_cli.live.parameters.mixed_parameter import Mixed
from randes_cli.live.pool.pooled import refuse_pooled
from randes_cli.live.standing import Standing
from randes_cli.live.weights.weight import Weight

#: What PEFT calls rows without an adapter.
_BASE = "__base__"


def attach(
    model: torch.nn.Module,
    bank: Bank | str | Path,
    *,
    tasks: Sequence[str] | None = None,
    component: str | None = None,
    hold: str = "dense",
    base: str | None = None,
    coefficient: float | None = None,
    strict: bool = True,
) -> MixedModel:
    """Let a model answer for every task of a bank, a task for each row of a batch.

        model = randes_cli.transformers.from_bank("bank.randes")
        mixed = randes_cli.attach(model, "bank.randes")
        with mixed.tasks(["cars", "sun", "cars"]):
            logits = model(**batch).logits

    The base's values are written into `model` (built from the base's config, on any device, in
    any dtype). Each superposition is held once, whatever the number of tasks: ``hold="dense"``
    in the model's dtype, ``"codes"`` as the bank stores it (less memory, more work). `tasks` are
    those to attach (None: all). `component` names the part of a pipeline that `model` is.

    Signs that do not factor (``hankel``), layers that the transform shuffles, tensors that tasks
    keep exactly, convolutions whose windows overlap and experts that are modules are answered
    task by task (`MixedModel.by_task`): right, and slower the more tasks a batch has. A warning
    says so.

    Raises MissingError for unknown tasks and for parameters that neither a task nor the base
    has (``strict=False``: those rows answer NaN), MismatchError for what does not fit.
    """
    if hold not in ("dense", "codes"):
        raise UsageError(f"hold is 'dense' or 'codes', not {hold!r}")
    with opened(bank, base) as found:
        chosen = list(found.tasks) if tasks is None else [_known(t, found.tasks) for t in tasks]
        refuse_known(model)
        refuse_pooled(model)
        reading = start(
            model,
            found,
            chosen,
            component=component,
            coefficient=coefficient,
            dense=hold == "dense",
            strict=strict,
        )
        current, slots = Current(), []
        with ExitStack() as undo:
            for slot, weight in list(weights(reading, list(untied(slots_of(model), reading)))):
                if weight is not None:
                    slots.append(slot)
                    undo.callback(_replace, slot, slot.tensor)
                    _replace(slot, mixed_parameter(weight, current))
            special_layers(model, undo)
            mixed = MixedModel(model, reading, current, slots, undo)
        try:
            _warn(mixed, found, other_parts(reading.wholes, component))
        except Warning:  # where warnings are errors
            mixed.detach()
            raise
    return mixed


def _warn(mixed: MixedModel, bank: Bank, others: Sequence[str]) -> None:
    """A line where other parts answer as the base, and where a step takes longer the more tasks a
    batch has."""
    if others:
        parts = ", ".join(map(repr, others))
        warnings.warn(
            f"{bank.file.path}: tasks differ from the base in {parts}, too, which "
            f"answers as the base until it is attached as well (component={others[0]!r})",
            PartsWarning,
            stacklevel=3,
        )
    if mixed.by_task:
        transform = bank.file.manifest.transform
        warnings.warn(
            f"{bank.file.path}: {len(mixed.by_task)} parameters (signs {transform.signs.value}, "
            f"shuffle {transform.shuffle.value}, kept exactly, or of convolutions and experts) are "
            "answered task by task: a step costs about a swap for each task in the batch; matrices "
            "of --transform two-sided do not",
            stacklevel=3,
        )


def _known(task: str, tasks: Sequence[str]) -> str:
    if task in tasks:
        return task
    raise MissingError(no_task(task, tasks))


def _replace(slot: Slot, value: torch.Tensor) -> None:
    for module, attribute in slot.places:
        store: dict[str, Any] = module._parameters
        (store if attribute in store else module._buffers)[attribute] = value


class MixedModel:
    """A model with the tasks of a bank attached to it.

    Attributes:
        model: the model itself, which runs as ever inside a block that names tasks.
        names: the tasks that may be named.
        lacking: (task, parameter) pairs that answer with the base's values, because the task
            was saved without them.
        by_task: parameters whose products take longer the more tasks a batch has.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        reading: Reading,
        current: Current,
        slots: list[Slot],
        undo: ExitStack,
    ) -> None:
        self.model, self.names = model, reading.tasks
        self.lacking = tuple(reading.lacking)
        slow = {*by_task(model), *(w.name for w in self._weights() if not w.at_once)}
        self.by_task = tuple(w.name for w in self._weights() if w.name in slow)
        self._current, self._running, self._detached = current, threading.RLock(), False
        guard(model, current, undo)
        watch_features(model, current, undo)
        Turning(model, current, undo)
        self._standing = Standing(model, slots, undo)
        one_at_a_time(model, current, undo)
        self._batching = Batching(model, current, self._running, self._numbers, self._check)
        self._undo = undo.pop_all()

    @contextmanager
    def tasks(self, names: Sequence[Any] | torch.Tensor) -> Iterator[torch.nn.Module]:
        """Name a task for each row (None or "__base__": the base); yields the model.

        For a task for each token, give a list of names for each row, or a tensor of numbers
        [rows, tokens] (places in `names`; −1 is the base). Rows that become several, as beams
        do, keep their task. A block of another thread waits for the end of this one; one of another
        task of asyncio is refused meanwhile.
        Raises MissingError for an unknown name, with the nearest.
        """
        tensors = chain(self.model.parameters(), self.model.buffers())
        device, numbers = next(tensors).device, self._numbers(names)
        with self._running:
            self._check()
            current, selection = self._current, Selection.of(numbers, device)
            tokens = selection.index.dim() == 2 and selection.only is None
            with (
                current.block(selection),
                kept_order(selection.only is None),
                kept_tokens(self.model, current) if tokens else nullcontext(),
            ):
                yield self.model

    def _check(self) -> None:
        """Refuse to answer where the model has not what `attach` gave it."""
        if self._detached:
            raise UsageError("the tasks were detached: the model answers as the base")
        self._standing.check()

    def __reduce__(self) -> Any:
        raise UsageError("an attached model is neither copied nor saved: detach, or attach anew")

    def _numbers(self, names: Sequence[Any] | torch.Tensor) -> Any:
        count = len(self.names)
        if isinstance(names, torch.Tensor):
            whole = not (names.is_floating_point() or names.dtype == torch.bool)
            if not (whole and names.numel() and names.dim() in (1, 2)):
                raise UsageError("tasks by number: whole numbers, [rows] or [rows, tokens]")
            if not -1 <= int(names.min()) <= int(names.max()) < count:
                raise MissingError(f"task numbers are between -1 and {count - 1}")
            return names.cpu().long().remainder(count + 1)
        if isinstance(names, str) or not hasattr(names, "__len__") or not len(names):
            raise UsageError("name a task for each row of the batch: a list of names")
        if isinstance(names[0], (list, tuple)):
            rows = [self._numbers(row) for row in names]
            if len({len(row) for row in rows}) > 1:
                raise UsageError("rows name unequally many tokens: name a task for each of all")
            return torch.tensor(rows)
        return [
            count if name in (None, _BASE) else self.names.index(_known(name, self.names))
            for name in names
        ]

    def __getattr__(self, name: str) -> Any:
        """What is not here is the model's: `config`, `device` … Libraries take it for the model."""
        if name == "model" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def _named(self, names: Sequence[Any] | torch.Tensor | None) -> AbstractContextManager[Any]:
        """A block of these tasks; with None the one that runs."""
        return nullcontext(self.model) if names is None else self.tasks(names)

    def __call__(
        self, *inputs: Any, adapter_names: Sequence[Any] | torch.Tensor | None = None, **more: Any
    ) -> Any:
        """Run the model on a batch whose rows ask for these tasks (PEFT's name for them).

        None: inside a block, for its tasks.
        """
        with self._named(adapter_names) as model:
            return model(*inputs, **more)

    def generate(
        self, *inputs: Any, adapter_names: Sequence[Any] | torch.Tensor | None = None, **more: Any
    ) -> Any:
        """The model's `generate`, each row as its own task."""
        with self._named(adapter_names) as model:
            return model.generate(*inputs, **more)

    def generate_batch(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        adapter_names: Sequence[Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The model's continuous batching, with a task for each request, all packed together.

        By the place of a request: ``req_0`` … Raises UsageError, MissingError.
        """
        made: dict[str, Any] = self._batching.generate(inputs, adapter_names=adapter_names, **more)
        return made

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the model, and of what all tasks take beside it."""
        base = sum(p.numel() * p.element_size() for p in self._values())
        held = {id(one.stored): one.nbytes for w in self._weights() for one in w.held}
        own = sum(weight.nbytes for weight in self._weights())
        return {"model": base, "tasks": sum(held.values()) + own}

    def _weights(self) -> list[Weight]:
        mixed = {id(v.weight): v.weight for v in self._values() if isinstance(v, Mixed)}
        return list(mixed.values())

    def _values(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def detach(self) -> torch.nn.Module:
        """Give the model back as it was, with the base's values.

        Waits for the end of another thread's block; raises UsageError inside one of this thread.
        """
        with self._running:
            if self._current.blocks:
                raise UsageError("a block that names tasks is open: detach after it")
            if self._detached:
                return self.model
            self._detached = True
            self._undo.close()
        self._batching.release()
        return self.model
