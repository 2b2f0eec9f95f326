"""Signals that end a command whenever they come: 128 + number, and nothing half-written.

What a handler raises appears wherever Python happens to be. In some places it is lost
(finalisers, callbacks, the compiler while it folds constants) or dressed up (`__set_name__`); in
others it splits what belongs together (a file, and the note that it is there). So the handler
records the number and looks at the stack: it raises where an exception can travel, and a timer
has it look again, until the command has ended. `end` answers by what was recorded.

The library installs nothing: this is the command line's, which marks what may be stopped, and
the files', which mark what may not.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys

TYPE_CHECKING = False  # typing takes 4 ms, in which a signal would end Python with a traceback
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any, NoReturn, TypeVar

    F = TypeVar("F", bound=Callable[..., object])

#: What stops a command: the keyboard, the system, and a terminal that closes.
SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
#: Whether there is a timer to look again with, and a mask to end behind: not on Windows.
_TIMERS = hasattr(signal, "setitimer")
#: Seconds until the first look again, and between later ones at most.
_SOON, _LATER = 0.001, 0.1


class Stopped(KeyboardInterrupt):
    """One of `SIGNALS` arrived. The compiler lets a KeyboardInterrupt pass, and nothing else."""


#: Whether an exception may be raised while a function is on the stack; the innermost decides.
_MARKS: dict[CodeType, bool] = {}


class _Seen:
    """The first signal's number, and how long until the handler looks again."""

    number = 0
    pause = _SOON


def stoppable(function: F) -> F:
    """Mark a function that a signal may end, whoever calls it."""
    _MARKS[function.__code__] = True
    return function


def unstoppable(function: F) -> F:
    """Mark a function (or a generator's own steps) that a signal waits for."""
    _MARKS[function.__code__] = False
    return function


def received() -> int:
    """The number of the first signal that came, or 0."""
    return _Seen.number


def install() -> None:
    """Handle the signals, but for those that are ignored, as nohup and shells want it."""
    sys.unraisablehook = on_lost
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)


def on_signal(number: int, frame: FrameType | None) -> None:
    """Record the number; raise Stopped where it can travel, and look again in any case."""
    _Seen.number = _Seen.number or number
    if _TIMERS:
        signal.signal(signal.SIGALRM, _look_again)
        signal.setitimer(signal.ITIMER_REAL, _Seen.pause)
    _Seen.pause = min(2 * _Seen.pause, _LATER)
    if _can_travel(frame):
        raise Stopped(_Seen.number)


def _look_again(number: int, frame: FrameType | None) -> None:
    on_signal(_Seen.number, frame)


def on_lost(lost: Any) -> None:
    """Say nothing of a Stopped that Python drops: it comes again."""
    if not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)


def _is_on_its_way() -> bool:
    """Whether a Stopped is being handled just now, by a `finally` for one."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def _can_travel(frame: FrameType | None) -> bool:
    """Whether an exception that is raised here reaches the command's end, and splits nothing."""
    if _is_on_its_way() or frame is None or _module(frame) == "contextlib":
        return False
    while frame is not None:
        mark = _MARKS.get(frame.f_code)
        if mark is not None:
            return mark
        if frame.f_code.co_filename.startswith("<frozen importlib") or _is_seam(frame):
            return False
        frame = frame.f_back
    return True


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_seam(frame: FrameType) -> bool:
    """Whether a `with` is between its generator's step and its own, or has a Condition's lock (an
    Event waits so) and has not begun: the lock would stay taken, and who comes next wait for ever.

    A function that a context manager decorates runs between the two: that is no seam.
    """
    if _module(frame) == "threading":
        return frame.f_code.co_name == "__enter__"
    if _module(frame) != "contextlib" or frame.f_code.co_name not in ("__enter__", "__exit__"):
        return False
    generator = getattr(frame.f_locals.get("self"), "gen", None)
    return generator is not None and not generator.gi_running


@unstoppable
def end(code: int) -> NoReturn:
    """End the process with `code`, or as the signal wants it that was received.

    Nothing is left to Python's own end, which signals would meet unprepared.
    """
    if _TIMERS:
        signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, signal.SIGALRM})
    if _Seen.number:
        code = 128 + _Seen.number
        _say_so()
    atexit._run_exitfuncs()  # of libraries that put their own files away
    os._exit(code)


def _say_so() -> None:
    """Say what happened, unless that had to wait for a reader; whatever follows goes nowhere."""
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, b"randes: interrupted; nothing half-written was left\n")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    except (OSError, ValueError):
        pass
