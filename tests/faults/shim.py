"""A file layer that fails: system calls are counted, and the n-th one goes wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

#: The calls by which randes changes a file system.
WRITES = ("pwrite", "ftruncate", "copy_file_range", "fsync", "replace", "unlink")

Real = Callable[..., Any]
#: Gets the real call and its arguments in place of the n-th call.
Fault = Callable[[str, Real, tuple[Any, ...]], Any]


class Counter:
    """Calls so far; all threads count together."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            self.calls += 1
            return self.calls


@contextlib.contextmanager
def faulty(
    fault: Fault, at: int, *, names: tuple[str, ...] = WRITES, for_ever: bool = False
) -> Iterator[Counter]:
    """Let the `at`-th of the named calls of `os` (0: none; `for_ever`: and all after it) fail."""
    counter = Counter()
    real = {name: getattr(os, name) for name in names}

    def wrapped(name: str) -> Real:
        def call(*arguments: Any, **more: Any) -> Any:
            number = counter.next()
            if number == at or (for_ever and 0 < at < number):
                return fault(name, real[name], arguments)
            return real[name](*arguments, **more)

        return call

    for name in names:
        setattr(os, name, wrapped(name))
    try:
        yield counter
    finally:
        for name in names:
            setattr(os, name, real[name])


def die(name: str, real: Real, arguments: tuple[Any, ...]) -> None:
    """kill -9 just before the call."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_halfway(name: str, real: Real, arguments: tuple[Any, ...]) -> None:
    """kill -9 with half of a write done, or just after any other call."""
    if name == "pwrite":
        fd, data, offset = arguments
        real(fd, data[: len(data) // 2], offset)
    else:
        real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(number: int) -> Fault:
    """The call does nothing and fails with this errno."""

    def fault(name: str, real: Real, arguments: tuple[Any, ...]) -> None:
        if name == "close":
            real(*arguments)
        raise OSError(number, os.strerror(number))

    return fault


def count_calls(job: Callable[[], object], names: tuple[str, ...] = WRITES) -> int:
    """How many of the named calls a job makes."""
    with faulty(die, 0, names=names) as counter:
        job()
    return counter.calls


def killed(job: Callable[[], object], fault: Fault, at: int) -> bool:
    """Run a job in a forked child that dies at its `at`-th call; whether it did."""
    child = os.fork()
    if child == 0:
        try:
            with faulty(fault, at):
                job()
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"the job failed by itself at call {at}")
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
