"""Threads that may die before they begin: where memory is short, that is no hang.

And what they take from: jobs, and copies.
"""

from __future__ import annotations

import _thread
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

    Job = tuple[Callable[[], None], Future[None]]

J = TypeVar("J")
#: Seconds between two looks at a thread that has not said that it ended.
_LOOK = 0.5


class _Alive:
    """Lives as long as the call that a thread makes with it."""


class Begun:
    """A call for a thread of its own, which ends with the process.

    `threading.Thread.start` waits until the new thread says that it runs, for ever where that
    finds no memory before it can (until Python 3.14).
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call, self._ended = call, threading.Event()
        self._alive: Callable[[], _Alive | None] = lambda: None

    def start(self) -> None:
        """Raises RuntimeError or MemoryError where the system gives no thread."""
        alive = _Alive()
        self._alive = weakref.ref(alive)
        _thread.start_new_thread(_run, (self._call, self._ended, alive))

    def is_alive(self) -> bool:
        """Whether the call was begun and is not over, however it ends."""
        return not self._ended.is_set() and self._alive() is not None

    def join(self) -> None:
        """Wait for it."""
        while self._alive() is not None and not self._ended.wait(_LOOK):
            pass


def _run(call: Callable[[], None], ended: threading.Event, alive: _Alive) -> None:
    try:
        call()
    finally:
        ended.set()


def start(pool: Sequence[Begun]) -> Sequence[Begun]:
    """Start threads; those that the system let start."""
    for count, thread in enumerate(pool):
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # all that Python says of it
            return pool[:count]
    return pool


@contextmanager
def meanwhile(call: Callable[[], None]) -> Iterator[None]:
    """A block beside a call that may fail, or be left out where the system gives no thread."""

    def tried() -> None:
        with suppress(OSError):
            call()

    started = start([Begun(tried)])
    try:
        yield
    finally:
        for thread in started:
            thread.join()


def together(work: Callable[[], None], threads: int) -> None:
    """Call `work` in this thread and in others, which stay: to start and to end them takes a while.

    Raises what it raised; returns when all that began have ended. Where the system gives fewer
    threads, fewer call it.
    """
    from concurrent.futures import Future, wait

    jobs, pool = _standing(os.getpid())
    pool += start([Begun(partial(_stand, jobs)) for _ in range(len(pool) + 1, threads)])
    others: list[Future[None]] = [Future() for _ in pool[: threads - 1]]
    for other in others:
        jobs.put((work, other))
    try:
        work()
    finally:
        begun = [other for other in others if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()


@lru_cache(maxsize=1)
def _standing(process: int) -> tuple[SimpleQueue[Job], list[Begun]]:
    """The jobs and the threads of a process; a forked one has none of its parent's."""
    return SimpleQueue(), []


def _stand(jobs: SimpleQueue[Job]) -> None:
    while True:
        work, job = jobs.get()
        if job.set_running_or_notify_cancel():
            try:
                job.set_result(work())
            except BaseException as error:
                job.set_exception(error)
        del work, job  # what they hold is not kept meanwhile


class Queue(Generic[J]):
    """Jobs and copies, each in their order; one copy is made at a time while there are jobs.

    All threads write to one file: who copies waits for it, and would wait for others who copy.
    """

    def __init__(self, jobs: Iterable[J], copies: Iterable[J]) -> None:
        self._jobs, self._copies = deque(jobs), deque(copies)
        self._lock, self._copying = threading.Lock(), 0

    def take(self) -> tuple[bool, J] | None:
        """The next to do, and whether it is a copy: then say when it is `made`. None: all are."""
        with self._lock:
            if self._copies and not (self._copying and self._jobs):
                self._copying += 1
                return True, self._copies.popleft()
            return (False, self._jobs.popleft()) if self._jobs else None

    def made(self) -> None:
        """A copy is made."""
        with self._lock:
            self._copying -= 1
