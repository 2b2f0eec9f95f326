"""Threads that do jobs: as many as there are, the first failure stops all."""

from __future__ import annotations

import threading

import pytest

from randes_cli.workers import no_progress, run_parallel


def _sum(jobs: range, threads: int) -> int:
    total, lock = [0], threading.Lock()

    def work(state: None, job: int) -> int:
        with lock:
            total[0] += job
        return 1

    run_parallel(
        jobs,
        lambda: None,
        work,
        threads=threads,
        phase="",
        total=len(jobs),
        progress=no_progress,
    )
    return total[0]


@pytest.mark.parametrize("given", [0, 1, 3])
def test_where_the_system_gives_fewer_threads_fewer_do_the_work(
    given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = threading.Thread.start, [0]

    def refuse(thread: threading.Thread) -> None:
        if started[0] >= given:
            raise RuntimeError("can't start new thread")
        started[0] += 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert _sum(range(100), threads=8) == sum(range(100))
    assert started[0] == given


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
