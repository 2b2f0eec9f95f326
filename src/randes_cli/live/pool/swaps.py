"""Swaps of all tensors of a task: by compiled code on a CPU, as one graph on a CUDA device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from randes_cli.core.compiled.swap import Source, Swap
from randes_cli.errors import MismatchError
from randes_cli.live.attaching import Slot
from randes_cli.live.lazy import Whole
from randes_cli.live.pool.resident import Resident
from randes_cli.live.weights.parts import Part, Parts

Job = tuple[Slot, Parts]


class _Made(NamedTuple):
    """What is ready of a task.

    Attributes:
        forms: where its parameters lie, and how.
        to: where its tensors are written to, those of `swap`.
        left: the jobs that it does not do.
    """

    jobs: Sequence[Job]
    forms: list[tuple[Any, ...]]
    to: list[int]
    left: list[Job]
    swap: Swap


class Swaps:
    """What compiled code writes of each task; the rest is for who asks."""

    def __init__(self, resident: Resident, *, threads: int) -> None:
        self._resident, self._threads = resident, threads
        self._made: dict[str, _Made] = {}

    def write(
        self, task: str, whole: Whole, jobs: Sequence[Job], check: Callable[[], None]
    ) -> list[Job]:
        """Write the parameters that can be, and return the others. Raises BankDamaged."""
        made = self._made.get(task)
        if made is None or made.jobs is not jobs or made.forms != forms(jobs):
            made = self._made[task] = self._make(whole, jobs, check)
        made.swap.write(made.to, threads=self._threads)
        return list(made.left)

    def _make(self, whole: Whole, jobs: Sequence[Job], check: Callable[[], None]) -> _Made:
        lie, places = forms(jobs), [_places(whole, *job) for job in jobs]

        def sources(number: int) -> list[Source] | None:
            check()
            if not places[number]:
                return None
            parts = jobs[number][1]
            rows = [part.rows if isinstance(part.rows, range) else None for part in parts]
            found = [
                self._resident.source(whole, p.name, r) for p, r in zip(parts, rows, strict=True)
            ]
            return [source for source in found if source] if all(found) else None

        with ThreadPoolExecutor(self._threads) as threads:
            found = list(threads.map(sources, range(len(jobs))))
        to = [place for number, made in enumerate(found) if made for place in places[number]]
        left = [job for job, made in zip(jobs, found, strict=True) if not made]
        return _Made(jobs, lie, to, left, Swap([s for made in found for s in made or ()]))


def forms(jobs: Sequence[Job]) -> list[tuple[Any, ...]]:
    """Where parameters lie, and how."""
    tensors = (slot.tensor for slot, _ in jobs)
    return [(t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors]


def _places(whole: Whole, slot: Slot, parts: Parts) -> list[int]:
    """Where the tensors of a parameter lie in memory as the task has them; else []."""
    found = [_place(whole, slot.tensor, part) for part in parts]
    return [place for place in found if place] if all(found) else []


def _place(whole: Whole, tensor: torch.Tensor, part: Part) -> int:
    """0 where a tensor has no place of its very form."""
    info = whole.retrieval.tensors[part.name]
    target = tensor.detach()[part.place] if part.place else tensor
    elements = math.prod(part.shape(info.shape))
    same = target.dtype == whole.dtype(part.name) and target.numel() == elements
    if part.turned or not isinstance(part.rows, range | None):
        return 0
    if target.device.type != "cpu" or not (same and target.is_contiguous()):
        return 0
    return target.data_ptr()


def versions(slots: Sequence[Slot]) -> list[tuple[int, int]]:
    """How often torch wrote to each, and where it lies."""
    return [
        (0 if t.is_inference() else t._version, 0 if t.is_meta else t.data_ptr())
        for t in (slot.tensor for slot in slots)
    ]


def check_shape(slot: Slot, parts: Sequence[Any], whole: Whole, task: str) -> None:
    if len(parts) == 1 and not parts[0].place:
        shape = parts[0].shape(whole.retrieval.tensors[parts[0].name].shape)
        if shape != tuple(slot.tensor.shape):
            raise MismatchError(
                f"tensor {parts[0].name!r} of task {task} is {list(shape)}, the model's is "
                f"{list(slot.tensor.shape)}"
            )


def fill(whole: Whole, slot: Slot, parts: Parts) -> None:
    """Write one parameter: into its own memory where that has the tensor's form."""
    target, first = slot.tensor.detach(), parts[0]
    info = whole.retrieval.tensors[first.name]
    plain = target.device.type == "cpu" and target.is_contiguous() and first.whole
    if plain and target.nbytes == info.nbytes and whole.dtype(first.name) == target.dtype:
        whole.retrieval.write(first.name, target.reshape(-1).view(torch.uint8).numpy())
        return
    with torch.no_grad():
        for part in parts:
            part.put(whole.read(part.name).to(target.device, target.dtype), target)


class Recorded:
    """What a device does for the jobs that are ready for it.

    Attributes:
        left: the jobs that are not.
    """

    def __init__(
        self, jobs: Sequence[Job], write: Callable[[Slot, Parts], bool], device: torch.device
    ) -> None:
        """`write` does a job on the current stream and says whether it could."""
        self._forms = forms(jobs)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.stream(stream):
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self.left = [job for job in jobs if not write(*job)]
            finally:
                self._graph.capture_end()

    def fits(self, jobs: Sequence[Job]) -> bool:
        """Whether the parameters lie where they lay."""
        return self._forms == forms(jobs)

    def replay(self) -> None:
        self._graph.replay()


def wait_for(slots: Sequence[Slot]) -> None:
    """Until devices have done all that they were asked for."""
    for device in {slot.tensor.device for slot in slots}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
