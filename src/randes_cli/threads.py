"""Threads that may die before they begin: where memory is short, that is no hang."""

from __future__ import annotations

import _thread
import threading
import weakref
from collections.abc import Callable, Sequence

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
