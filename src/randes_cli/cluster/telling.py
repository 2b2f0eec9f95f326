"""What workers have done so far: they tell one process of a cluster, and the driver asks it."""

from __future__ import annotations

import time
from typing import Any

#: Seconds between two looks at what the workers have done.
LOOK = 0.5


class Telling:
    """Progress of a worker: bytes, told every now and then."""

    def __init__(self, told: Any) -> None:
        self._told, self._sum, self._last = told, 0, time.monotonic()

    def __call__(self, phase: str, done: int, total: int) -> None:
        self._sum += done
        if time.monotonic() - self._last > LOOK:
            self._told.add.remote(self._sum)
            self._sum, self._last = 0, time.monotonic()


class _Told:
    """Bytes that workers told of since somebody asked, in a process of its own."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, count: int) -> None:
        self._sum += count

    def take(self) -> int:
        count, self._sum = self._sum, 0
        return count


#: The process of this driver, by the node and the job that it is of: it takes a second to start.
_TELLERS: dict[tuple[str, str], Any] = {}


def teller(ray: Any) -> Any:
    """The process that is told. It runs beside the driver, and is lost only together with it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = ray.get_runtime_context()
    node = context.get_node_id()
    key = (node, context.get_job_id())
    if key not in _TELLERS:
        _TELLERS.clear()
        beside = NodeAffinitySchedulingStrategy(node, soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": beside}
        _TELLERS[key] = ray.remote(_Told).options(**options).remote()
    return _TELLERS[key]
