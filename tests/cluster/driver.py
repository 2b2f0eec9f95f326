"""A driver that is killed at one moment: when all tasks of a phase but one are done.

It is `randes WORDS` up to there. Its workers hold a lock for as long as they live.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from randes_cli.cli.main import main
from randes_cli.cluster import Cluster
from randes_cli.workers import Progress
from tests.cluster.deaths import Work

#: Not run as a module: workers could not import what `__main__` defines.
_DRIVER = "from tests.cluster.driver import drive; drive()"


class _Held:
    """What this worker holds."""

    lock: IO[str] | None = None


@dataclass(frozen=True)
class Marked:
    """Work whose worker can be waited for."""

    work: Work
    lock: Path

    def __call__(self, state: Any, task: Any, progress: Progress) -> Any:
        if _Held.lock is None:
            _Held.lock = self.lock.open("a")
            fcntl.flock(_Held.lock, fcntl.LOCK_SH)
        return self.work(state, task, progress)


def run_until(phase: str, lock: Path, words: list[str]) -> None:
    """Have a driver killed, and its workers go."""
    command = [sys.executable, "-c", _DRIVER, phase, str(lock), *words]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    root = Path(__file__).parents[2]  # workers find `tests` in their driver's folder
    done = subprocess.run(command, cwd=root, env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def drive() -> None:
    """What the process does."""
    last, lock, *sys.argv[1:] = sys.argv[1:]
    real = Cluster.map

    def mapped(
        self: Cluster, work: Work, held: Any, tasks: Sequence[Any], *, phase: str, **words: Any
    ) -> Iterator[Any]:
        work = Marked(work, Path(lock))
        for done, found in enumerate(real(self, work, held, tasks, phase=phase, **words), 1):
            yield found
            if phase == last and done == max(1, len(tasks) - 1):
                os.kill(os.getpid(), signal.SIGKILL)

    Cluster.map = mapped  # type: ignore[method-assign]
    main()
