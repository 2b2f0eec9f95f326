"""Interrupts by the keyboard that wait until nothing is written any more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Presses:
    """What was pressed in a block of `held`."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def check(self) -> None:
        """Raise KeyboardInterrupt where one waits. Call it before work that takes a while."""
        if self.heard:
            raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[Presses]:
    """An interrupt is answered at the block's end; work asks whether to go on.

    Raised at once, it would leave threads behind that still write: a pool of threads does not
    know one that it was about to note down.
    """
    presses, before = Presses(), None
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield presses
        return
    answer: Callable[..., object] = before
    signal.signal(signal.SIGINT, lambda *press: presses.heard.append(press))
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)
        if presses.heard:
            answer(*presses.heard[0])
