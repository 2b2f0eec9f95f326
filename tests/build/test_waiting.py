"""Memory that superpositions wait in: pieces that never overlap, as many as there is room for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.build.jobs.waiting import Arena
from randes_cli.core.arrays import Raw


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=60))
def test_what_is_taken_is_nobody_elses_until_it_is_given_back(
    wishes: list[tuple[int, int]],
) -> None:
    arena, held = Arena(100), list[tuple[Raw, int]]()
    for mark, (size, given_back) in enumerate(wishes):
        found = arena.take(size)
        room = 100 - sum(len(memory) for memory, _ in held)
        assert found is not None or size > room // (len(held) + 1)  # the largest gap
        if found is not None:
            assert len(found) == size
            found[:] = mark
            held.append((found, mark))
        for memory, value in held:
            assert (memory == value).all()
        for memory, _ in held[:given_back]:
            arena.give(memory)
        held = held[given_back:]


def test_no_memory_is_made_before_some_is_asked_for() -> None:
    arena = Arena(2**62)  # more than there is
    arena.give(np.empty(0, np.uint8))
    assert arena.take(2**63) is None
