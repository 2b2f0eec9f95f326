"""Many machines: tasks on the workers of a Ray cluster, given anew where a worker is lost.

Ray is taken as it is. A task is a pure function of what is shared and of itself; doing it twice
does the same twice. This and `telling` are the only modules that know Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar

from randes_cli.cluster.telling import LOOK, Telling, teller
from randes_cli.errors import (
    FULL,
    HubError,
    InputOutputError,
    NoSpace,
    OutOfResources,
    RandesError,
    UsageError,
)
from randes_cli.specs import RunOptions
from randes_cli.workers import Progress, no_progress

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")

#: Times that a task is given to another worker after the first one was lost.
RETRIES = 5
#: Seconds after which a cluster without workers is given up.
_DESERTED = 60.0
#: Seconds that a cluster may take to answer.
_PATIENCE = 5.0
#: Bytes of the smallest part of something that is cut for the workers.
_LEAST_SHARE = 2**20
#: Frames of a task's first words that are shown of a failure which is none of ours.
_SHOWN = 200


class Shared(Protocol[S_co]):
    """What every task needs: picklable, and opened once in a worker."""

    def opened(self) -> AbstractContextManager[S_co]:
        """What tasks get of it."""


class _Opened:
    """What this worker has open, for as long as tasks ask for the same."""

    key: Any = None
    state: Any = None
    stack = ExitStack()


def _do(
    work: Callable[[S, T, Progress], R],
    key: tuple[str, str],
    shared: Shared[S],
    task: T,
    told: Any,
) -> R:
    """One task, in a worker. `key` is the version of the program, and what is shared."""
    from randes_cli import __version__

    if key[0] != __version__:
        raise UsageError(f"a worker has randes {__version__}, and this is {key[0]}")
    if _Opened.key != key:
        _Opened.stack.close()
        _Opened.key = None
        _Opened.state = _Opened.stack.enter_context(shared.opened())
        _Opened.key = key
    return work(_Opened.state, task, Telling(told))


class _Watch:
    """Looks at what the workers have done, and whether there are any."""

    def __init__(self, cluster: Cluster, told: Any) -> None:
        self._cluster, self._told = cluster, told
        told.take.remote()  # what is left of work before
        self._asked = told.take.remote()
        self._seen = self._counted = time.monotonic()

    def look(self) -> int:
        """Bytes since the last look. Raises OutOfResources where no machine has been left a while.

        The driver waits for none of it.
        """
        now = time.monotonic()
        if now - self._counted > 10 * LOOK:
            self._counted = now
            self._seen = now if self._cluster.places() else self._seen
            if now - self._seen > _DESERTED:
                raise OutOfResources("no machine of the cluster is left that could work")
        found = self._cluster.take(self._asked)
        if found is not None:
            self._asked = self._told.take.remote()
        return found or 0


@dataclass(frozen=True, slots=True)
class Held(Generic[S]):
    """What tasks share, in the cluster's store."""

    key: tuple[str, str]
    ref: Any


class Cluster:
    """A Ray cluster: the one at an address, or what this machine has.

    `run.threads` are those of one worker (0: one), which takes as many processors.
    Raises UsageError where Ray is not installed, HubError where no cluster answers.
    """

    def __init__(self, run: RunOptions) -> None:
        if find_spec("ray") is None:
            raise UsageError("--engine ray needs Ray: pip install 'randes-cli[ray]'")
        import ray

        self._ray: Any = ray
        self._threads = max(1, run.threads)
        self._gpus = 1 if run.device == "cuda" else 0
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(run.address)
        self.workers = self.places()
        if not self.workers:
            raise UsageError(
                f"--threads {self._threads}: no machine of the cluster has so many processors"
            )

    def share(self, nbytes: int) -> int:
        """Bytes of a task where several for each worker are to come of so many."""
        return max(_LEAST_SHARE, nbytes // (4 * self.workers))

    def hold(self, shared: Shared[S]) -> Held[S]:
        """Give every worker what its tasks share."""
        from randes_cli import __version__

        return Held((__version__, f"{time.time_ns()}"), self._ray.put(shared))

    def _connect(self, address: str | None) -> None:
        import logging
        import socket

        host, colon, port = (address or "").rpartition(":")
        if colon and port.isdigit():  # Ray itself waits for minutes
            try:
                socket.create_connection((host, int(port)), _PATIENCE).close()
            except OSError as error:
                raise HubError(
                    f"--address {address}: no Ray cluster answers there ({error.strerror or error})"
                ) from None
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            quiet["include_dashboard"] = False
        try:
            self._ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            why = str(error).strip().splitlines()[0][:_SHOWN] if str(error).strip() else "no answer"
            raise HubError(f"--address {address}: no Ray cluster answers there ({why})") from None

    def map(
        self,
        work: Callable[[S, T, Progress], R],
        held: Held[S],
        tasks: Sequence[T],
        *,
        phase: str,
        total: int,
        progress: Progress = no_progress,
        in_order: bool = False,
    ) -> Iterator[tuple[int, R]]:
        """Do every task; yields the number of one and its result, as they come or in order.

        `total` bytes are told of by `work`, which a lost worker's task tells of again.
        Raises what `work` raises; OutOfResources where workers are lost again and again.
        """
        ray = self._ray
        told = teller(ray)
        options = {"num_cpus": self._threads, "num_gpus": self._gpus, "max_retries": RETRIES}
        remote = ray.remote(_do).options(**options)
        pending = {
            remote.remote(work, held.key, held.ref, task, told): number
            for number, task in enumerate(tasks)
        }
        label = f"{phase} on {min(self.workers, max(1, len(tasks)))} workers"
        seen, watch, came, due = 0, _Watch(self, told), dict[int, Any](), 0
        try:
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=1, timeout=LOOK)
                more = min(watch.look(), total - seen)
                seen += more
                progress(label, more, total)
                came |= {pending.pop(ref): ref for ref in ready}
                while came and (due in came or not in_order):
                    number = due if in_order else next(iter(came))
                    yield number, self._result(came.pop(number))
                    due += 1
            progress(label, total - seen, total)
        finally:
            for ref in pending:
                with suppress(Exception):
                    ray.cancel(ref, force=True)
            with suppress(Exception):
                ray.wait(list(pending), num_returns=len(pending), timeout=10 * LOOK)

    def places(self) -> int:
        """Tasks that the machines which are left can do at once."""
        nodes = (node["Resources"] for node in self._ray.nodes() if node["Alive"])
        return sum(int(node.get("CPU", 0)) // self._threads for node in nodes)

    def take(self, asked: Any) -> int | None:
        """What was told of; None where there is no answer yet."""
        ready, _ = self._ray.wait([asked], timeout=0)
        try:
            return int(self._ray.get(asked)) if ready else None
        except self._ray.exceptions.RayError:
            return 0

    def _result(self, ref: Any) -> Any:
        found = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except found.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, RandesError):
                raise cause from None
            if isinstance(cause, MemoryError):
                raise OutOfResources("a worker has not enough memory; say --max-memory") from None
            if isinstance(cause, OSError):
                kind = NoSpace if cause.errno in FULL else InputOutputError
                raise kind(f"a worker: {cause.strerror or cause}; nothing was changed") from None
            if isinstance(cause, (found.RaySystemError, ImportError)):
                lines = str(cause).strip().splitlines() or [type(cause).__name__]
                raise UsageError(
                    "a worker cannot read what it is to do; every machine needs randes of this "
                    f"version ({lines[-1][:_SHOWN]})"
                ) from None
            raise cause from error
        except found.OutOfMemoryError:
            raise OutOfResources(
                f"a worker's machine ran out of memory {RETRIES + 1} times; say --max-memory, or "
                "fewer workers on a machine"
            ) from None
        except found.RayError as error:
            words = type(error).__name__
            raise OutOfResources(f"workers were lost {RETRIES + 1} times ({words})") from None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the cluster, if it was entered here."""
        if self._ours:
            self._ray.shutdown()


def machines(run: RunOptions) -> AbstractContextManager[object]:
    """Keeps the cluster open that `run` asks for, so that what is held there lasts; or nothing."""
    return Cluster(run) if run.engine == "ray" else nullcontext()
