"""How many threads work."""

from __future__ import annotations

from randes_cli.specs import TensorInfo
from randes_cli.workers import thread_count

SMALL = [TensorInfo(f"{n}", "F32", (64, 64)) for n in range(10)]
LARGE = TensorInfo("large", "F32", (4096, 4096))


def test_small_tensors_are_left_to_one_thread() -> None:
    assert thread_count(0, SMALL) == 1
    assert thread_count(0, [*SMALL, LARGE]) == thread_count(0)


def test_threads_asked_for_are_used_whatever_the_tensors() -> None:
    assert thread_count(3, SMALL) == 3
