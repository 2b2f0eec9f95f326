"""`Pool`: one model in memory that becomes one task after another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from randes_cli.api import Bank
from randes_cli.core.compiled.swap import known
from randes_cli.errors import MismatchError, MissingError, UsageError
from randes_cli.live.attaching import Slot, holds, made_by_model, parts_of, slots_of, start
from randes_cli.live.lazy import Whole
from randes_cli.live.matching.adapters import Links
from randes_cli.live.matching.tied import whole_ones
from randes_cli.live.pool.pooled import add, discard, watch
from randes_cli.live.pool.presses import held
from randes_cli.live.pool.resident import Resident
from randes_cli.live.pool.swaps import Job, Recorded, Swaps, check_shape, fill, versions, wait_for
from randes_cli.live.weights.parts import Parts
from randes_cli.workers import thread_count


@dataclass(frozen=True, eq=False, slots=True)
class _Ticket:
    """Who asked for a task, from which thread."""

    task: str
    thread: int


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
        model: the model, which may be run inside a `use` block alone, as its parts may.
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
        self._slots, self._links = slots_of(model), Links(model)
        self._threads = thread_count(self._bank.run.threads)
        self._keeps, self._residents = resident, dict[torch.device, Resident | None]()
        here = self._resident(torch.device("cpu"))
        self._swaps = Swaps(here, threads=self._threads) if here and known("F32") else None
        self._versions, self._closed = list[tuple[int, int]](), False
        self._component, self._coefficient = component, coefficient
        self._jobs: dict[str, tuple[Whole, list[Job]]] = {}
        self._graphs: dict[str, Recorded] = {}
        self._lock = threading.RLock()
        self._condition, self._queue = threading.Condition(self._lock), deque[_Ticket]()
        self._users, self._swapper, self._broken = set[_Ticket](), None, ""
        add(self)
        self._hooks = watch(model, self._slots, self._refuse)

    current: str | None
    _swapper: _Ticket | None

    def _resident(self, device: torch.device) -> Resident | None:
        """What stays on a device, if anything is to."""
        if device not in self._residents:
            keeps = known("F32") if device.type == "cpu" else True
            keeps = keeps if self._keeps is None else self._keeps
            self._residents[device] = Resident(self._bank, device) if keeps else None
        return self._residents[device]

    def _look(self) -> None:
        """Notice parameters that the model has anew, or that somebody else wrote to."""
        if self._swapper is not None:
            return
        self._links.refuse_merged()
        kept = all(holds(*place) is slot.tensor for slot in self._slots for place in slot.places)
        if not (kept and self._links.kept):
            self._slots, self.current = slots_of(self.model), None
            self._jobs, self._graphs, self._links = {}, {}, Links(self.model)
        elif not self._users and self._versions != versions(self._slots):
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

        Raises MissingError for an unknown task or parameters that it lacks and MismatchError
        for tensors that do not fit the model, both before anything is written; UsageError in a
        block of this thread of another task, which it would wait for for ever; TimeoutError
        after `timeout` seconds of waiting; BankDamaged in a swap, after which the model
        refuses to run until a task was swapped in whole.
        """
        ticket = _Ticket(task, threading.get_ident())
        try:
            with self._lock:
                if self._closed:
                    raise UsageError("the pool is closed")
                self._look()
            self._plan(task)
            self._enter(ticket, timeout)
            yield self.model
        finally:
            try:
                self._leave(ticket)
            except KeyboardInterrupt:
                self._leave(ticket)
                raise

    def _enter(self, ticket: _Ticket, timeout: float | None) -> None:
        end = None if timeout is None else monotonic() + timeout
        with self._lock:
            self._queue.append(ticket)
            while not self._may_enter(ticket):
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(
                        f"waited {timeout} s for task {ticket.task}: {len(self._users)} users "
                        f"of {self.current} are running"
                    )
                self._condition.wait(left)
            if self.current == ticket.task:
                self._let_in(ticket)
                return
            self._swapper, self.current = ticket, None
            self._broken = f"a swap to {ticket.task} is under way"
        self._swap(ticket)

    def _let_in(self, ticket: _Ticket) -> None:
        self._users.add(ticket)
        self._queue.remove(ticket)
        self._condition.notify_all()

    def _leave(self, ticket: _Ticket) -> None:
        """Forget who asked, however far he came; a second time there is nothing to do."""
        with self._lock:
            self._users.discard(ticket)
            if ticket in self._queue:
                self._queue.remove(ticket)
            if self._swapper is ticket:
                self._swapper = None
            self._condition.notify_all()

    def _may_enter(self, ticket: _Ticket) -> bool:
        """Whoever asked first goes first: later users of the running task do not pass it.

        But for threads that run the task already: who waits for them would wait for ever.
        """
        if any(user.thread == ticket.thread for user in self._users):
            if self.current == ticket.task:
                return True
            raise UsageError("a block of another task is open in this thread: close it first")
        return self._queue[0] is ticket and (self.current == ticket.task or not self._users)

    def _swap(self, ticket: _Ticket) -> None:
        """Write a task while nobody runs; others may ask meanwhile."""
        task = ticket.task
        try:
            with held() as presses, self._bank.steady():
                self._write(task, *self._plan(task), presses.check)
            with self._lock:
                self._broken, self.current, self._versions = "", task, versions(self._slots)
                self._swapper, self.swaps = None, self.swaps + 1
                self._let_in(ticket)
        except BaseException as error:
            self._broken = f"the swap to {task} failed ({error or type(error).__name__})"
            self.current = None
            raise

    def _plan(self, task: str) -> tuple[Whole, list[Job]]:
        """A task's tensors for every parameter, found once."""
        while True:
            with self._lock:
                found, slots = self._jobs.get(task), self._slots
            if found is not None:
                return found
            made = self._planned(task, slots)
            with self._lock:
                if slots is self._slots:
                    self._jobs[task] = made

    def _planned(self, task: str, slots: Sequence[Slot]) -> tuple[Whole, list[Job]]:
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
        for slot in whole_ones(slots, reading):
            parts = parts_of(slot, whole, reading)
            if parts is not None:
                check_shape(slot, parts, whole, task)
                made.append((slot, parts))
            elif not made_by_model(slot, reading):
                lacks = f"{task} has no tensor for the model's {slot.names[0]!r}"
                raise MissingError(f"{self._bank.file.path}: task {lacks}")
        return whole, made

    def _write(self, task: str, whole: Whole, jobs: list[Job], check: Callable[[], None]) -> None:
        wait_for(self._slots)  # for what users asked of a device, on any stream
        left = jobs if self._swaps is None else self._swaps.write(task, whole, jobs, check)
        graph = self._graphs.get(task)
        graph = graph if graph is not None and graph.fits(jobs) else None
        if graph is not None:
            graph.replay()
            left = graph.left
        else:
            left = [job for job in left if not self._at_once(whole, *job)]
        if left:
            with ThreadPoolExecutor(self._threads) as threads:
                list(threads.map(partial(self._put, whole, check), left))
        wait_for(self._slots)
        if graph is None:
            self._record(task, whole, jobs)

    def _record(self, task: str, whole: Whole, jobs: list[Job]) -> None:
        """Keep what a device did of a swap as one launch."""
        self._graphs.pop(task, None)
        devices = {slot.tensor.device for slot, _ in jobs}
        if len(devices) == 1 and next(iter(devices)).type == "cuda":
            write = partial(self._at_once, whole)
            self._graphs[task] = Recorded(jobs, write, next(iter(devices)))

    def _at_once(self, whole: Whole, slot: Slot, parts: Parts) -> bool:
        """Whether a parameter was written by a kernel that was ready for it."""
        resident = self._residents.get(slot.tensor.device)
        if resident is None or len(parts) != 1 or not parts[0].whole:
            return False
        return resident.at_once(whole, parts[0].name, slot.tensor.detach())

    def _put(self, whole: Whole, check: Callable[[], None], job: Job) -> None:
        """Write one parameter, from what is on its device where that can be."""
        check()
        slot, parts = job
        resident, target = self._resident(slot.tensor.device), slot.tensor.detach()
        whole_one = len(parts) == 1 and parts[0].whole
        if resident is None or not (whole_one and resident.write(whole, parts[0].name, target)):
            fill(whole, slot, parts)

    def close(self) -> None:
        """Let the model go as it is, and close the bank where the pool opened it."""
        for hook in self._hooks:
            hook.remove()
        discard(self)
        self._closed = True
        if self._mine:
            self._bank.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
