"""Every system call of a job that writes fails in turn."""

from __future__ import annotations

import errno

from randes_cli.errors import InputOutputError, NoSpace, RandesError
from tests.faults.conftest import Scene
from tests.faults.shim import WRITES, count_calls, fail_with, faulty

CALLS = (*WRITES, "close", "open")
CODES = {errno.ENOSPC: NoSpace, errno.EDQUOT: NoSpace, errno.EIO: InputOutputError}


def fail_every_call(scene: Scene, number: int, *, for_ever: bool, step: int = 1) -> tuple[int, int]:
    """Calls that failed (once, or from then on), and how many of them ended the job.

    Fails unless each leaves the old bank or the new one, with the error's class in one line.
    """
    scene.reset()
    calls = range(1, count_calls(scene.job, CALLS) + 1, step)
    refused = 0
    for at in calls:
        scene.reset()
        caught: RandesError | None = None
        try:
            with faulty(fail_with(number), at, names=CALLS, for_ever=for_ever):
                scene.job()
        except RandesError as error:
            caught = error
        state = scene.state()
        if caught is None:
            assert scene.is_new(), f"call {at}"
        else:
            refused += 1
            assert state in (scene.before, scene.after), f"call {at}"
            assert "\n" not in str(caught)
            if state == scene.after != scene.before:
                assert "in place" in str(caught)
            else:
                assert isinstance(caught, CODES[number])
        if not for_ever:
            assert scene.litter() == [] or caught is None
    return len(calls), refused
