"""Compiled products with a superposition as it is stored are those with its matrix."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from randes_cli.core.arrays import Array
from randes_cli.core.codes import pack_codes
from randes_cli.core.compiled.product import Stored, known, product
from randes_cli.core.levels import levels
from randes_cli.core.share import Share
from randes_cli.threads import together

pytestmark = pytest.mark.skipif(not known(), reason="nothing is compiled here")


def stored(random: np.random.Generator, bits: int, dtype: type) -> tuple[Stored, Array]:
    """A superposition of any size, and the matrix that it stands for, with zeros between."""
    rows, columns = (int(size) for size in random.integers(1, (150, 1200)))
    every = int(random.choice([1, 1, 2, 3, 8]))
    group = int(random.integers(0, 12))
    share = Share(rows, columns, every, group)
    if bits:
        codes = random.integers(0, 2**bits, share.shape, dtype=np.uint8)
        held: Array = pack_codes(codes.reshape(-1), bits)
        numbers: Array = levels(bits)[codes]
    else:
        numbers = held = random.integers(-100, 101, share.shape).astype(dtype)
    whole = np.zeros((rows, columns))
    for row in range(rows):
        mine = range(share.column(row), columns, every)
        whole[row, list(mine)] = numbers[row, : len(mine)]
    return Stored(held, rows, columns, bits, every, group), whole


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 4, 8])
def test_products_of_any_size_are_those_with_the_matrix(bits: int, level: int) -> None:
    random = np.random.default_rng(100 * level + bits)
    for turn in range(40):
        lies, whole = stored(random, bits, (np.int8, np.int16)[turn % 2])
        turned = lies.every == 1 and bool(turn % 3 == 0)
        count = int(random.choice([1, 5, 8, 9, 16, 17, 40]))
        x = random.integers(-8, 9, (count, lies.rows if turned else lies.columns))
        wanted = x @ (whole if turned else whole.T)
        for threads in (1, 3):
            made = product(x.astype(np.float32), lies, turned=turned, threads=threads)
            if bits:
                assert np.abs(made - wanted).max() <= 2e-6 * max(1, np.abs(wanted).max())
            else:
                assert np.array_equal(made, wanted)


def test_several_threads_make_each_output_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("randes_cli.core.compiled.product._FEW", 0)
    random = np.random.default_rng(0)
    numbers = random.integers(-9, 10, (1000, 64)).astype(np.int8)
    x = random.integers(-8, 9, (3, 64)).astype(np.float32)
    for threads in (2, 3, 7):
        made = product(x, Stored(numbers, 1000, 64, 0, 1, 0), turned=False, threads=threads)
        assert np.array_equal(made, x @ numbers.T.astype(np.float32))


def test_what_a_thread_raises_is_raised_when_all_have_ended() -> None:
    ended: list[int] = []
    begun = threading.Barrier(3)

    def work() -> None:
        first = begun.wait(60) == 0
        if not first:
            time.sleep(0.05)
        ended.append(1)
        if first:
            raise ValueError("first")

    for _ in range(5):  # who raises is now one, now another
        with pytest.raises(ValueError, match="first"):
            together(work, 3)
        assert len(ended) == 3
        ended.clear()
