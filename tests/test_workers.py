"""Threads that do jobs: as many as there are, the first failure stops all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from randes_cli import threads
from randes_cli.threads import Begun, Queue
from randes_cli.workers import no_progress, run_parallel


def _sum(jobs: Sequence[int], count: int) -> int:
    total, lock = [0], threading.Lock()

    def work(state: None, job: int) -> int:
        with lock:
            total[0] += job
        return 1

    _do(jobs, work, count)
    return total[0]


def _do(
    jobs: Sequence[int], work: Callable[[None, int], int], count: int, copies: Sequence[int] = ()
) -> None:
    run_parallel(
        jobs,
        lambda: None,
        work,
        threads=count,
        phase="",
        total=len(jobs) + len(copies),
        progress=no_progress,
        copies=copies,
    )


def _give(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the system start so many threads and no more; how many it has."""
    start, started = Begun.start, [0]

    def refuse(thread: Begun) -> None:
        if started[0] >= most:
            raise RuntimeError("can't start new thread")
        started[0] += 1
        start(thread)

    monkeypatch.setattr(Begun, "start", refuse)
    return started


@pytest.mark.parametrize("given", [0, 1, 3])
def test_where_the_system_gives_fewer_threads_fewer_do_the_work(
    given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = _give(given, monkeypatch)
    assert _sum(range(100), count=8) == sum(range(100))
    assert started[0] == given


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("dead", [1, 3, 8])
def test_threads_that_find_no_memory_before_they_begin_are_waited_for_no_longer(
    dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, started = threads._run, [0]

    def starve(*held: Any) -> None:
        started[0] += 1
        if started[0] <= dead:
            del held  # which pytest would keep, with the frame of the error
            raise MemoryError
        begin(*held)

    monkeypatch.setattr(threads, "_run", starve)
    assert _sum(range(100), count=8) == sum(range(100))
    assert started[0] == 8


@pytest.mark.parametrize("given", [0, 1, 3])
def test_a_call_made_together_is_made_by_as_many_threads_as_the_system_gives(
    given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads._standing.cache_clear()
    started = _give(given, monkeypatch)
    begun, callers = threading.Barrier(given + 1), set()
    for _ in range(3):
        threads.together(lambda: callers.add((begun.wait(60), threading.get_ident())[1]), 8)
    assert started[0] == given
    assert len(callers) == given + 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_call_made_together_waits_for_no_thread_that_never_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def starve(*held: Any) -> None:
        del held
        raise MemoryError

    threads._standing.cache_clear()
    monkeypatch.setattr(threads, "_run", starve)
    called: list[int] = []
    threads.together(lambda: called.append(1), 8)
    for thread in threads._standing(os.getpid())[1]:
        thread.join()
    threads._standing.cache_clear()
    assert called == [1]


class _Losing(list[int]):
    """Says that it has one more than it gives."""

    def __len__(self) -> int:
        return super().__len__() + 1


def test_a_job_that_is_lost_with_its_thread_is_no_success() -> None:
    with pytest.raises(MemoryError):
        _sum(_Losing(range(100)), count=2)


def test_the_first_failure_ends_all_and_is_raised() -> None:
    done = []

    def work(state: None, job: int) -> int:
        if job == 5:
            raise ValueError("the fifth")
        done.append(job)
        return 1

    with pytest.raises(ValueError, match="the fifth"):
        run_parallel(
            range(10_000),
            lambda: None,
            work,
            threads=2,
            phase="",
            total=1,
            progress=no_progress,
        )
    assert len(done) < 10_000


def test_one_thread_copies_while_there_are_jobs_and_all_do_once_there_are_none() -> None:
    queue = Queue([1, 2, 3], [-1, -2, -3, -4])
    assert queue.take() == (True, -1)
    assert queue.take() == (False, 1)
    assert queue.take() == (False, 2)
    queue.made()
    assert queue.take() == (True, -2)
    assert queue.take() == (False, 3)
    assert [queue.take(), queue.take()] == [(True, -3), (True, -4)]
    assert queue.take() is None


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_job_and_every_copy_is_done_once_and_two_copies_never_meet_a_job(count: int) -> None:
    jobs, copies = [*range(300)], [*range(1000, 1040)]
    done, under_way, lock = list[int](), list[int](), threading.Lock()

    def work(state: None, job: int) -> int:
        with lock:
            left = len(jobs) - sum(one < 1000 for one in [*done, *under_way])
            under_way.append(job)
            met = sum(one >= 1000 for one in under_way)
        assert met <= 1 or left < count
        with lock:
            under_way.remove(job)
            done.append(job)
        return 1

    _do(jobs, work, count, copies)
    assert sorted(done) == [*jobs, *copies]
