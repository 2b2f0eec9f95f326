"""A share of a matrix: which elements it has, where they lie, element by element."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.share import Share

SHARES = st.builds(
    Share, st.integers(1, 12), st.integers(8, 30), st.sampled_from([1, 2, 4, 8]), st.integers(0, 9)
)


def slowly(share: Share, values: np.ndarray) -> np.ndarray:
    """The stored matrix from the definition; −1 where a row has one fewer."""
    made = np.full(share.shape, -1, values.dtype)
    for i in range(share.rows):
        kept = [j for j in range(share.cols) if (i + j + share.group) % share.every == 0]
        made[i, : len(kept)] = values.reshape(share.rows, share.cols)[i, kept]
    return made


@given(SHARES)
def test_the_whole_is_stored_row_by_row_with_a_zero_where_one_is_missing(share: Share) -> None:
    values = np.arange(1, share.rows * share.cols + 1)
    expected = slowly(share, values)
    assert np.array_equal(
        share.take(values, 0).reshape(share.shape), np.where(expected < 0, 0, expected)
    )


@given(SHARES, st.data())
def test_any_run_is_that_part_of_the_whole(share: Share, data: st.DataObject) -> None:
    values = np.arange(1, share.rows * share.cols + 1)
    start = data.draw(st.integers(0, len(values) - 1))
    count = data.draw(st.integers(1, len(values) - start))
    whole, run = share.take(values, 0), values[start : start + count]
    first, last = share.place(start), share.place(start + count)
    found = share.take(run, start)
    assert np.array_equal(found, whole[first:last])
    i, j = np.divmod(np.arange(start, start + count), share.cols)
    inside = (i + j + share.group) % share.every == 0
    assert np.array_equal(share.spread(found, start, count), np.where(inside, run, 0))


@given(SHARES)
def test_consecutive_runs_join_to_the_whole(share: Share) -> None:
    size = share.rows * share.cols
    ends = [0, size // 3, size // 2, size]
    places = [share.place(end) for end in ends]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, share.shape[0] * share.shape[1])


@given(SHARES)
def test_a_table_has_the_columns_of_each_residue_of_rows(share: Share) -> None:
    columns = np.arange(1, share.cols + 1)
    table = share.table(columns)
    for i in range(share.rows):
        kept = [j + 1 for j in range(share.cols) if (i + j + share.group) % share.every == 0]
        assert table[i % share.every][: len(kept)].tolist() == kept
    assert np.array_equal(share.columns(table), columns)


@given(SHARES)
def test_counts_are_those_of_the_elements(share: Share) -> None:
    i, j = np.indices((share.rows, share.cols))
    inside = (i + j + share.group) % share.every == 0
    in_row, in_column = share.counts
    assert in_row.tolist() == inside.sum(axis=1).tolist()
    assert in_column.tolist() == inside.sum(axis=0).tolist()


def test_rows_of_one_residue_are_a_dense_block_of_strided_columns() -> None:
    share = Share(8, 12, 4, 3)
    values = np.arange(96).reshape(8, 12)
    stored = share.take(values.reshape(-1), 0).reshape(share.shape)
    for residue in range(4):
        first = (-residue - 3) % 4
        assert np.array_equal(stored[residue::4], values[residue::4, first::4])
