"""Workers that die, or have too little: what a test has the tasks of a cluster do."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from randes_cli.cluster import Cluster
from randes_cli.workers import Progress

Work = Callable[[Any, Any, Progress], Any]


@dataclass(frozen=True)
class DiesOnce:
    """Work whose worker is killed once, when it has done a task and nobody was told."""

    work: Work
    mark: Path

    def __call__(self, state: Any, task: Any, progress: Progress) -> Any:
        made = self.work(state, task, progress)
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return made
        os.kill(os.getpid(), signal.SIGKILL)
        return None


def instead(monkeypatch: pytest.MonkeyPatch, change: Callable[[Work, str], Work]) -> None:
    """Have clusters do other work; `change` is told the phase."""
    real = Cluster.map

    def mapped(self: Cluster, work: Work, *rest: Any, phase: str, **words: Any) -> Iterator[Any]:
        return real(self, change(work, phase), *rest, phase=phase, **words)

    monkeypatch.setattr(Cluster, "map", mapped)


def killing(monkeypatch: pytest.MonkeyPatch, marks: Path) -> Callable[[], set[str]]:
    """Have a worker die in every phase; returns what tells in which one has."""
    marks.mkdir()
    instead(monkeypatch, lambda work, phase: DiesOnce(work, marks / phase))
    return lambda: {path.name for path in marks.iterdir()}


@dataclass(frozen=True)
class Starves:
    """Work of a process with no quarter of a megabyte left, or that may make no file of a half.

    `what`: the limit of `resource` that is set, and taken back.
    """

    work: Work
    what: int

    def __call__(self, state: Any, task: Any, progress: Progress) -> Any:
        before, held = resource.getrlimit(self.what), list[bytearray]()
        memory = self.what == resource.RLIMIT_AS
        resource.setrlimit(self.what, (_mapped() if memory else 2**19, before[1]))
        try:
            for size in (2**22, 2**18) if memory else ():  # what was freed is there to take
                with suppress(MemoryError):
                    while True:
                        held.append(bytearray(size))
            return self.work(state, task, progress)
        finally:
            held.clear()
            resource.setrlimit(self.what, before)


def _mapped() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
