"""The thread that computes: takes jobs in, steps every model that has some, tells of what came."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from randes_cli.server.answer import Job
from randes_cli.server.edition import Edition
from randes_cli.server.encoding import Encoding
from randes_cli.server.errors import Refused, trace
from randes_cli.server.generating import Generating

log = logging.getLogger("randes.serve")

Lane = Generating | Encoding


class Engine:
    """One computing thread for all editions. The rest may be called from any thread.

    Attributes:
        current: what new requests begin with. A job keeps the model that it was given, so
            whatever replaces this touches no job under way; a model goes when its last job has.
        most: how many jobs may wait.
    """

    def __init__(self, edition: Edition, most: int) -> None:
        self.current, self.most = edition, most
        self._condition = threading.Condition()
        self._inbox: deque[tuple[Any, Job]] = deque()
        self._lanes: dict[int, Lane] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="randes-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, lane: Lane, jobs: Sequence[Job]) -> None:
        """Have jobs wait for their turn, all or none. Raises Refused where too many do."""
        with self._condition:
            if self.waiting + len(jobs) > self.most:
                raise Refused(
                    429,
                    f"{self.waiting} answers wait already; ask again",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self._inbox.extend((lane, job) for job in jobs)
            self._condition.notify()

    @property
    def waiting(self) -> int:
        return len(self._inbox) + sum(len(lane.waiting) for lane in list(self._lanes.values()))

    @property
    def running(self) -> int:
        """How many answers are under way."""
        return sum(lane.rows for lane in list(self._lanes.values()))

    def stop(self) -> None:
        """End what is under way in errors, and the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._inbox or self._lanes or self._stopping):
                    self._condition.wait()
                self._take_in()
                if self._stopping:
                    break
            self._step()
        for lane in self._lanes.values():
            lane.fail("the server was stopped")

    def _take_in(self) -> None:
        """Give jobs to their lanes; nothing of them stays behind, or a model would with it."""
        while self._inbox:
            lane, job = self._inbox.popleft()  # a task's jobs are of the kind that its lane does
            self._lanes[id(lane)] = lane
            lane.waiting.append(job)

    def _step(self) -> None:
        for key, lane in list(self._lanes.items()):
            try:
                lane.step()
            except Exception as error:  # a fault of this program's: no job may hang for it
                log.error("a step failed: %s", trace(error))
                lane.fail(f"the server failed ({type(error).__name__})")
                time.sleep(0.01)
            if not lane.busy:
                del self._lanes[key]
