"""Continuous batching of transformers for requests of many tasks, packed into one row.

Every request carries the number of its task, and each step names a task for each packed token.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import cache
from typing import Any

import torch

from randes_cli.errors import UsageError
from randes_cli.live.batch.selection import Current, Selection
from randes_cli.live.inputs.kept import kept_tokens

#: What a request's number is called among the arguments that travel with it.
_TASK = "randes_task"
_UNNAMED = object()


class Batching:
    """What an attached model does where transformers would pack requests into one row.

    Attributes:
        turn: held by whoever runs the model.
        numbers: of names, checked.
        asked: what the requests ask for that `generate_batch` of transformers adds; None: each
            names its task itself.
    """

    def __init__(
        self,
        model: Any,
        current: Current,
        turn: Any,
        numbers: Callable[[Sequence[Any]], Sequence[int]],
        check: Callable[[], None],
    ) -> None:
        self.model, self.current, self.turn = model, current, turn
        self.numbers, self.check = numbers, check
        self.asked: Sequence[int] | None = None
        if hasattr(model, "init_continuous_batching"):
            model.__dict__["init_continuous_batching"] = self.manager
            model.__dict__["generate_batch"] = self.generate

    def release(self) -> None:
        """Give the model its own continuous batching back."""
        if isinstance(_cached(self.model), _manager_class()):
            self.model.destroy_cached_continuous_batching_manager()
        for name in ("init_continuous_batching", "generate_batch"):
            self.model.__dict__.pop(name, None)

    def generate(
        self,
        inputs: Sequence[Sequence[int]],
        *given: Any,
        adapter_names: Sequence[Any] | None = None,
        **more: Any,
    ) -> Any:
        """`generate_batch` of transformers; without names for the rows of the block that runs."""
        kind: Any = type(self.model)
        if not hasattr(kind, "generate_batch"):
            raise UsageError(f"{kind.__name__} has no continuous batching (generate_batch)")
        if not len(inputs):
            return {}
        with self.turn:
            self.check()
            _refuse_empty(inputs)
            before, self.asked = self.asked, self._asked(len(inputs), adapter_names)
            try:
                return kind.generate_batch(self.model, list(map(list, inputs)), *given, **more)
            finally:
                self.asked = before

    def _asked(self, count: int, names: Sequence[Any] | None) -> Sequence[int]:
        selection = self.current.get() if names is None else None
        if selection is not None and selection.only is not None:
            return [selection.only] * count
        if selection is not None:
            found = selection.index
        elif isinstance(names, str) or names is None or len(names) != count:
            raise UsageError("name a task for each of the requests: a list of names")
        else:
            found = torch.as_tensor(self.numbers(names))
        if found.shape != (count,):
            raise UsageError(f"{count} requests, and tasks for {list(found.shape)}: name one each")
        numbers: list[int] = found.tolist()
        return numbers

    def manager(
        self,
        generation_config: Any = None,
        continuous_batching_config: Any = None,
        *given: Any,
        **more: Any,
    ) -> Any:
        """`init_continuous_batching` of transformers: a manager whose requests name their tasks."""
        inside = self.current.selection is not None and self.current.thread == threading.get_ident()
        if self.asked is None and inside:
            raise UsageError(
                "make the manager outside of a block, which its steps would wait for, and name "
                "the task of each request: manager.add_request(ids, adapter_name=…)"
            )
        kind, made = type(self.model), _manager_class()
        if not isinstance(_cached(self.model), made | None):
            raise UsageError("the model keeps a manager from before attach: destroy it first")
        config = _config(
            continuous_batching_config, generation_config or self.model.generation_config
        )
        manager = kind.init_continuous_batching(
            self.model, generation_config, config, *given, **more
        )
        manager.__class__ = made
        manager.logit_processor.supported_keys[_TASK] = int
        manager.batching, manager.asked = self, self.asked
        # Whoever calls `generate` waits for its steps, and has the model for all of them.
        manager.turn = self.turn if self.asked is None else nullcontext()
        return manager


def _cached(model: Any) -> Any:
    return getattr(model, "_cached_continuous_batching_manager", None)


def _config(config: Any, generation: Any) -> Any:
    """As asked for, but nothing is recorded, and nothing shared among requests of unlike tasks."""
    import transformers

    made = transformers.ContinuousBatchingConfig() if config is None else copy(config)
    compiled = made.varlen_compile_config or made.decode_compile_config
    compiled = compiled or made.default_compile_level or getattr(generation, "compile_config", None)
    graphs = made.use_cuda_graph
    if compiled or made.use_async_batching or (any(graphs) if type(graphs) is tuple else graphs):
        raise UsageError(
            "a step that is compiled or recorded, or prepared during another, would repeat its "
            "tasks: leave use_cuda_graph, use_async_batching and compile configs unset"
        )
    if (getattr(generation, "num_beams", None) or 1) > 1:
        raise UsageError("continuous batching has no beams: use generate, or num_beams=1")
    made.use_cuda_graph = made.use_async_batching = made.allow_block_sharing = False
    return made


@cache
def _manager_class() -> Any:
    try:
        from transformers.generation.continuous_batching import ContinuousBatchingManager
    except ImportError:
        return type(None)
    takes = inspect.signature(ContinuousBatchingManager.add_request).parameters
    known = "logit_processor_kwargs" in takes
    if not known or not hasattr(ContinuousBatchingManager, "_generation_step"):
        raise UsageError("this version of transformers packs requests in a way not known here")

    class MixedManager(ContinuousBatchingManager):  # type: ignore[misc]
        """Requests name their tasks, and each step the tasks of its tokens."""

        batching: Batching
        asked: Sequence[int] | None
        turn: AbstractContextManager[Any]

        def add_request(
            self, input_ids: list[int], *given: Any, adapter_name: Any = _UNNAMED, **more: Any
        ) -> Any:
            if adapter_name is _UNNAMED:
                raise UsageError("name the task of the request: adapter_name=… (None: the base)")
            number = self.batching.numbers([adapter_name])[0]
            _refuse_empty([input_ids])
            return super().add_request(input_ids, *given, **{**more, _TASK: number})

        def add_requests(
            self, inputs: list[list[int]], *, adapter_names: Any = None, **more: Any
        ) -> list[Any]:
            numbers = self.asked
            if adapter_names is not None:
                numbers = self.batching.numbers(adapter_names)
            if numbers is None or isinstance(adapter_names, str) or len(numbers) != len(inputs):
                raise UsageError("name a task for each of the requests: adapter_names=[…]")
            _refuse_empty(inputs)
            add = super().add_request
            return [
                add(ids, **{**more, _TASK: number})
                for ids, number in zip(inputs, numbers, strict=True)
            ]

        def _generation_step(self) -> None:
            io = self.batch_processor.inputs_and_outputs
            with self.turn:
                self.batching.check()
                with _selected(self.batching, _packed(io), io.compute_stream):
                    super()._generation_step()

    return MixedManager


def _refuse_empty(inputs: Sequence[Sequence[int]]) -> None:
    """A request of no tokens would be given what follows another's."""
    if not all(map(len, inputs)):
        raise UsageError("a request has no tokens: give it one at least (as its first, BOS)")


def _packed(io: Any) -> list[int]:
    """The task of each token of a step; padding goes with the last."""
    states = [(future.state, future.query_length) for future in io.requests_in_batch]
    tasks = [(state.logit_processor_kwargs[_TASK], count) for state, count in states]
    made: list[int] = [task for task, count in tasks for _ in range(count)]
    padding: int = io.num_q_tokens - len(made)
    return made + made[-1:] * padding


@contextmanager
def _selected(batching: Batching, tasks: list[int], stream: Any) -> Iterator[None]:
    """Let the model run for these tasks of one row's tokens, on the stream that it runs on."""
    current = batching.current
    before = current.selection
    with torch.cuda.stream(stream) if isinstance(stream, torch.cuda.Stream) else nullcontext():
        current.selection = Selection.of(torch.tensor([tasks]), batching.model.device)
    try:
        with kept_tokens(batching.model, current):
            yield
    finally:
        current.selection = before
