"""Workers: threads that take jobs in order, each with a kernel, and stop at the first failure."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Protocol, TypeVar

from randes_cli.core.kernel import Kernel
from randes_cli.core.kernels import STRIP_ELEMENTS, make_kernel, strip_elements, strip_memory
from randes_cli.plan import CHUNK_ELEMENTS, Rect, chunks, tensor_bytes
from randes_cli.specs import RunOptions, TensorInfo
from randes_cli.threads import Begun, Queue, start

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

J = TypeVar("J")
W = TypeVar("W")


class Progress(Protocol):
    """Called from any thread with bytes done since the last call, of `total` in `phase`."""

    def __call__(self, phase: str, done: int, total: int) -> None: ...


def no_progress(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


#: Mean elements of a tensor below which one thread alone is faster (measured): more of them
#: would wait for Python's lock for longer than they compute.
_SMALL = 2**16
#: Threads that wait for a store at a time: each asks for one range.
_FAR = 16


def thread_count(asked: int, tensors: Collection[TensorInfo] = (), *, far: bool = False) -> int:
    """Threads to use: as asked, or one for each core that this process may use.

    `tensors` are those to work on, a job each or more; where they are small, one thread does it.
    What is read from afar (a store, the Hub) takes more, for they wait and do not compute.
    """
    if asked > 0:
        return asked
    if far:
        return _FAR
    if tensors and sum(tensor.elements for tensor in tensors) < _SMALL * len(tensors):
        return 1
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def at_once(call: Callable[[J], W], items: Iterable[J], *, far: bool = True) -> list[W]:
    """What a call returns for every item; of what is `far` several are asked for at a time."""
    if not far:
        return [call(item) for item in items]
    with _pool(_FAR) as pool:
        running = [pool.submit(copy_context().run, call, item) for item in items]
        return [one.result() for one in running]


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for stores: what they are made of is loaded where there is a store."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads)


def run_in_order(
    jobs: Sequence[J],
    read: Callable[[J], W],
    use: Callable[[J, W], None],
    *,
    far: bool,
    phase: str,
    progress: Progress,
    most: int = _FAR,
) -> None:
    """`use` here what `read` makes of every job, in order.

    Many short reads, for which threads would wait more than they work, unless what is read is
    `far`: then a few are asked for ahead, up to `most` at a time.
    """
    if not far:
        for job in jobs:
            use(job, read(job))
            progress(phase, 1, len(jobs))
        return
    with _pool(most) as pool:
        ahead: deque[Future[W]] = deque()
        try:
            for number, job in enumerate(jobs):
                while len(ahead) < min(2 * most, len(jobs) - number):
                    ahead.append(pool.submit(copy_context().run, read, jobs[number + len(ahead)]))
                use(job, ahead.popleft().result())
                progress(phase, 1, len(jobs))
        finally:
            for future in ahead:
                future.cancel()


def run_parallel(
    jobs: Sequence[J],
    worker: Callable[[], W],
    work: Callable[[W, J], int],
    *,
    threads: int,
    phase: str,
    total: int,
    progress: Progress,
    copies: Sequence[J] = (),
    beside: Iterable[Callable[[], None]] = (),
    cores: int | None = None,
) -> None:
    """Do every job; `worker` makes each thread's state, `work` returns the bytes it did.

    `copies` are jobs, too: see `Queue`.
    Where there are several `cores` (None: as many as threads) this thread takes the steps of
    `beside` meanwhile, as many as there is time for. The
    first exception stops all threads after their present jobs and is raised here; so does an
    interruption of the calling thread. Where the system gives fewer threads, fewer do it, or this.
    """
    lock, stop, failures, did = threading.Lock(), threading.Event(), list[BaseException](), [0]
    queue, count = Queue(jobs, copies), len(jobs) + len(copies)

    def loop() -> None:
        try:
            state = worker()
            for copied, job in iter(queue.take, None):
                if stop.is_set():
                    return
                done = work(state, job)
                if copied:
                    queue.made()
                with lock:
                    did[0] += 1
                    progress(phase, done, total)
        except BaseException as error:
            failures.append(error)
            stop.set()

    if not count:
        return
    pool = [Begun(loop) for _ in range(min(threads, count))]
    try:
        started = start(pool)
        for step in beside if started and (cores or len(started)) > 1 else ():
            if stop.is_set() or not any(thread.is_alive() for thread in started):
                break
            step()
        for thread in started:
            thread.join()
        if not failures and did[0] < count:
            loop()
    finally:
        stop.set()
        for thread in pool:
            thread.join()
    if failures:
        raise failures[0]
    if did[0] < count:
        raise MemoryError  # a thread could not even say so


def run_jobs(
    jobs: Sequence[J],
    work: Callable[[J], int],
    *,
    threads: int,
    phase: str,
    total: int,
    progress: Progress,
    copies: Sequence[J] = (),
) -> None:
    """`run_parallel` for jobs that need nothing of their thread."""

    def one(_: None, job: J) -> int:
        return work(job)

    run_parallel(
        jobs,
        lambda: None,
        one,
        threads=threads,
        phase=phase,
        total=total,
        progress=progress,
        copies=copies,
    )


def run_chunks(
    tensors: Iterable[TensorInfo],
    work: Callable[[str, int, Rect], int],
    run: RunOptions,
    *,
    phase: str,
    total: int | None = None,
    progress: Progress,
) -> None:
    """Do every chunk of these tensors: `work` takes its name, number and place.

    `total` is the sum of what `work` returns (None: the tensors' bytes).
    """
    tensors = list(tensors)
    jobs = [(t.name, n, rect) for t in tensors for n, rect in enumerate(chunks(*t.matrix))]
    run_jobs(
        jobs,
        lambda job: work(*job),
        threads=thread_count(run.threads, tensors),
        phase=phase,
        total=tensor_bytes(tensors) if total is None else total,
        progress=progress,
    )


class Workers:
    """Threads for jobs on `tensors`, each with a kernel; `layers` are those of the jobs' units."""

    def __init__(
        self,
        run: RunOptions,
        tensors: Collection[TensorInfo] = (),
        layers: Iterable[int] = (1,),
        *,
        far: bool = False,
    ) -> None:
        self.threads = thread_count(run.threads, tensors, far=far)
        self.cores = max(self.threads, thread_count(run.threads))
        self.far = far
        self._run = run
        counts = set(layers) or {1}
        self._elements, self._layers = max(map(self.strip, counts)), max(counts)
        self._own = threading.local()

    def strip(self, layers: int = 1) -> int:
        """Elements of a unit of so many layers that are computed at once."""
        run = self._run
        return strip_elements(
            layers,
            max_memory=run.max_memory,
            threads=self.threads,
            chosen=run.strip_elements,
            most=CHUNK_ELEMENTS if self.far else STRIP_ELEMENTS,
        )

    def kernel(self) -> Kernel:
        """A kernel with room for every job. Raises UsageError for an unknown device."""
        return make_kernel(self._run.device, elements=self._elements, layers=self._layers)

    def own_kernel(self) -> Kernel:
        """The calling thread's kernel, made when first asked for."""
        if not hasattr(self._own, "kernel"):
            self._own.kernel = self.kernel()
        kernel: Kernel = self._own.kernel
        return kernel

    @property
    def buffer_bytes(self) -> int:
        """Bytes of all threads' kernels."""
        return self.threads * strip_memory(self._layers, self._elements)

    def beside(self, most: int) -> int:
        """Bytes that may be held beside them: `most`, or what --max-memory leaves."""
        asked = self._run.max_memory
        return most if asked is None else max(0, asked - self.buffer_bytes)

    def run(
        self,
        jobs: Sequence[J],
        work: Callable[[Kernel, J], int],
        *,
        phase: str,
        total: int,
        progress: Progress,
        copies: Sequence[J] = (),
        beside: Iterable[Callable[[], None]] = (),
    ) -> None:
        """Do every job with a kernel; see `run_parallel`."""
        run_parallel(
            jobs,
            self.kernel,
            work,
            threads=self.threads,
            phase=phase,
            total=total,
            progress=progress,
            copies=copies,
            beside=beside,
            cores=self.cores,
        )
