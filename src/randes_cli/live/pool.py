"""`Pool`: one model in memory that becomes one task after another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from randes_cli.api import Bank
from randes_cli.core.fused_swap import known
from randes_cli.errors import MismatchError, MissingError, UsageError
from randes_cli.live.attaching import Slot, holds, parts_of, slots_of, start
from randes_cli.live.lazy import Whole
from randes_cli.live.parts import Parts
from randes_cli.live.recorded import Recorded
from randes_cli.live.resident import Resident
from randes_cli.live.swaps import Job, Swaps
from randes_cli.workers import thread_count


class Pool:
    """Swaps the tasks of a bank in and out of a model, in place. Use it from any thread.

        pool = randes_cli.Pool("bank.randes", model)
        with pool.use("cars") as model:
            answer = model(**batch)

    Users of one task run together; a swap waits for them, in the order of asking. The model
    then holds what `unpack` writes, bit for bit in the task's own dtype. Banks of any transform
    will do.

    The base and the superpositions stay on the model's device, as the bank stores them, and a swap
    computes there: on a CPU by compiled code, elsewhere by one kernel a tensor where Triton is, and
    by torch's operations. With `resident=False` the bank is read for every swap instead: slower,
    but nothing lies in memory beside the model. (None: so too where a CPU has no compiled code.)

    Attributes:
        model: the model, which may be run inside a `use` block alone.
        current: the task that it holds, or None.
        swaps: how many times weights were written.
    """

    def __init__(
        self,
        bank: Bank | str | Path,
        model: torch.nn.Module,
        *,
        component: str | None = None,
        base: str | None = None,
        coefficient: float | None = None,
        resident: bool | None = None,
    ) -> None:
        self._mine = not isinstance(bank, Bank)
        self._bank = bank if isinstance(bank, Bank) else Bank.open(bank, base=base)
        self.model, self.current, self.swaps = model, None, 0
        self._slots = slots_of(model)
        self._threads = thread_count(self._bank.run.threads)
        self._keeps, self._residents = resident, dict[torch.device, Resident | None]()
        here = self._resident(torch.device("cpu"))
        self._swaps = Swaps(here, threads=self._threads) if here and known("F32") else None
        self._versions, self._closed = list[int](), False
        self._component, self._coefficient = component, coefficient
        self._jobs: dict[str, tuple[Whole, list[Job]]] = {}
        self._graphs: dict[str, Recorded] = {}
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._users, self._swapping, self._broken = 0, False, ""
        self._hook = model.register_forward_pre_hook(self._refuse)

    current: str | None

    def _resident(self, device: torch.device) -> Resident | None:
        """What stays on a device, if anything is to."""
        if device not in self._residents:
            keeps = known("F32") if device.type == "cpu" else True
            keeps = keeps if self._keeps is None else self._keeps
            self._residents[device] = Resident(self._bank, device) if keeps else None
        return self._residents[device]

    def _look(self) -> None:
        """Notice parameters that the model has anew, or that somebody else wrote to."""
        if not all(holds(*place) is slot.tensor for slot in self._slots for place in slot.places):
            self._slots, self.current = slots_of(self.model), None
            self._jobs, self._graphs = {}, {}
        elif not (self._users or self._swapping) and self._versions != versions(self._slots):
            self.current = None

    def __reduce__(self) -> Any:
        raise UsageError("a model in a pool is neither copied nor saved: close the pool first")

    def _refuse(self, module: torch.nn.Module, inputs: Any) -> None:
        if self._broken:
            raise MismatchError(f"the model holds no task: {self._broken}; use one again")
        if not self._users:
            raise UsageError("run the model inside `with pool.use(task):`")

    @contextmanager
    def use(self, task: str, *, timeout: float | None = None) -> Iterator[torch.nn.Module]:
        """The model as a task, for the time of the block.

        A block inside a block of another task would wait for itself: close the first one.

        Raises MissingError for an unknown task or parameters that it lacks and MismatchError
        for tensors that do not fit the model, both before anything is written; TimeoutError
        after `timeout` seconds of waiting; BankDamaged in a swap, after which the model
        refuses to run until a task was swapped in whole.
        """
        with self._condition:
            if self._closed:
                raise UsageError("the pool is closed")
            self._look()
        self._plan(task)
        self._enter(task, timeout)
        try:
            yield self.model
        finally:
            with self._condition:
                self._users -= 1
                self._condition.notify_all()

    def _enter(self, task: str, timeout: float | None) -> None:
        ticket = object()
        end = None if timeout is None else monotonic() + timeout
        with self._condition:
            self._queue.append(ticket)
            try:
                while not self._may_enter(ticket, task):
                    left = None if end is None else end - monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError(
                            f"waited {timeout} s for task {task}: {self._users} users of "
                            f"{self.current} are running"
                        )
                    self._condition.wait(left)
                if self.current != task:
                    self._swap_alone(task)
                self._users += 1
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()

    def _may_enter(self, ticket: object, task: str) -> bool:
        """Whoever asked first goes first: later users of the running task do not pass it."""
        first = self._queue[0] is ticket and not self._swapping
        return first and (self.current == task or not self._users)

    def _swap_alone(self, task: str) -> None:
        """Write a task while nobody runs; others may ask meanwhile."""
        self._swapping, self.current = True, None
        self._broken = f"a swap to {task} is under way"
        self._condition.release()
        failed: BaseException | None = None
        try:
            self._write(task)
        except BaseException as error:
            failed = error
        self._condition.acquire()
        self._swapping = False
        if failed is not None:
            self._broken = f"the swap to {task} failed ({failed})"
            raise failed
        self._broken, self.current, self._versions = "", task, versions(self._slots)
        self.swaps += 1

    def _plan(self, task: str) -> None:
        """Find a task's tensors for every parameter, once."""
        with self._condition:
            if task in self._jobs:
                return
        self._bank.task(task)
        reading = start(
            self.model,
            self._bank,
            [task],
            component=self._component,
            coefficient=self._coefficient,
            dense=True,
            strict=True,
        )
        whole, made = reading.wholes[0], []
        for slot in self._slots:
            parts = parts_of(slot, whole, reading)
            if parts is None:
                raise MissingError(
                    f"{self._bank.file.path}: task {task} has no tensor for the model's "
                    f"{slot.names[0]!r}"
                )
            _check_shape(slot, parts, whole, task)
            made.append((slot, parts))
        with self._condition:
            self._jobs[task] = (whole, made)

    def _write(self, task: str) -> None:
        whole, jobs = self._jobs[task]
        self._wait()  # for what users asked of a device, on any stream
        left = jobs if self._swaps is None else self._swaps.write(task, whole, jobs)
        graph = self._graphs.get(task)
        graph = graph if graph is not None and graph.fits(jobs) else None
        if graph is not None:
            graph.replay()
            left = graph.left
        else:
            left = [job for job in left if not self._at_once(whole, *job)]
        if left:
            with ThreadPoolExecutor(self._threads) as threads:
                list(threads.map(lambda job: self._put(whole, *job), left))
        self._wait()
        if graph is None:
            self._record(task, whole, jobs)

    def _record(self, task: str, whole: Whole, jobs: list[Job]) -> None:
        """Keep what a device did of a swap as one launch."""
        self._graphs.pop(task, None)
        devices = {slot.tensor.device for slot, _ in jobs}
        if len(devices) == 1 and next(iter(devices)).type == "cuda":
            write = partial(self._at_once, whole)
            self._graphs[task] = Recorded(jobs, write, next(iter(devices)))

    def _wait(self) -> None:
        """Until devices have done all that they were asked for."""
        for device in {slot.tensor.device for slot in self._slots}:
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    def _at_once(self, whole: Whole, slot: Slot, parts: Parts) -> bool:
        """Whether a parameter was written by a kernel that was ready for it."""
        resident = self._residents.get(slot.tensor.device)
        if resident is None or len(parts) != 1 or not parts[0].whole:
            return False
        return resident.at_once(whole, parts[0].name, slot.tensor.detach())

    def _put(self, whole: Whole, slot: Slot, parts: Parts) -> None:
        """Write one parameter, from what is on its device where that can be."""
        resident, target = self._resident(slot.tensor.device), slot.tensor.detach()
        whole_one = len(parts) == 1 and parts[0].whole
        if resident is None or not (whole_one and resident.write(whole, parts[0].name, target)):
            _put(whole, slot, parts)

    def close(self) -> None:
        """Let the model go as it is, and close the bank where the pool opened it."""
        self._hook.remove()
        self._closed = True
        if self._mine:
            self._bank.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def versions(slots: Sequence[Slot]) -> list[int]:
    """How often torch wrote to each."""
    return [0 if slot.tensor.is_inference() else slot.tensor._version for slot in slots]


def _check_shape(slot: Slot, parts: Sequence[Any], whole: Whole, task: str) -> None:
    if len(parts) == 1 and not parts[0].place:
        shape = parts[0].shape(whole.retrieval.tensors[parts[0].name].shape)
        if shape != tuple(slot.tensor.shape):
            raise MismatchError(
                f"tensor {parts[0].name!r} of task {task} is {list(shape)}, the model's is "
                f"{list(slot.tensor.shape)}"
            )


def _put(whole: Whole, slot: Slot, parts: Parts) -> None:
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
