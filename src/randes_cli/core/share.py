"""A share of a matrix: one element in m of every row and of every column, stored row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class _Part(NamedTuple):
    """A block of a run: `height` rows of `width` elements from (row, col) on, `at` in the run."""

    at: int
    row: int
    col: int
    height: int
    width: int


class Share(NamedTuple):
    """The elements (i, j) of a rows × cols matrix with (i + j + group) mod `every` = 0.

    Row i has those of columns q, q + every, … with q = (−i − group) mod every. They are stored
    as a matrix of rows × ⌈cols / every⌉, in which a row that has one fewer ends with a zero. So
    the rows of one residue are a dense block: of strided rows and columns.
    """

    rows: int
    cols: int
    every: int
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, -(-self.cols // self.every)

    def column(self, row: int) -> int:
        """The first column of the share in a row."""
        return (-row - self.group) % self.every

    def place(self, element: int) -> int:
        """How many stored elements lie before an element of the matrix (in row-major order)."""
        row, col = divmod(element, self.cols)
        before = -((self.column(row) - col) // self.every)
        return row * self.shape[1] + max(0, before)

    def take(self, values: NDArray[Any], start: int) -> NDArray[Any]:
        """The stored form of a run of the matrix that begins at element `start`."""
        first, last = self.place(start), self.place(start + len(values))
        made = np.zeros(last - first, values.dtype)
        for dense, stored in self._pairs(values, made, start):
            stored[...] = dense
        return made

    def spread(self, stored: NDArray[Any], start: int, count: int) -> NDArray[Any]:
        """The run of `count` elements whose stored form is given; zeros outside the share."""
        made = np.zeros(count, stored.dtype)
        for dense, held in self._pairs(made, stored, start):
            dense[...] = held
        return made

    def _pairs(
        self, run: NDArray[Any], stored: NDArray[Any], start: int
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Views of a run and of its stored form that hold the same elements."""
        offset = self.place(start)
        for at, row, col, height, width in self._parts(start, len(run)):
            block = run[at : at + height * width].reshape(height, width)
            ends = [self.place(start + at + more) - offset for more in (0, height * width)]
            held = stored[ends[0] : ends[1]].reshape(height, -1)
            for down in range(min(self.every, height)):
                first = (self.column(row + down) - col) % self.every
                dense = block[down :: self.every, first :: self.every]
                yield dense, held[down :: self.every, : dense.shape[1]]

    def _parts(self, start: int, count: int) -> Iterator[_Part]:
        """At most three: the end of a row, whole rows, the beginning of one."""
        at = 0
        while at < count:
            row, col = divmod(start + at, self.cols)
            width = min(self.cols - col, count - at)
            height = max(1, (count - at) // self.cols) if width == self.cols else 1
            yield _Part(at, row, col, height, width)
            at += height * width

    def table(self, columns: NDArray[Any]) -> NDArray[Any]:
        """A value per column as one row for each residue of rows: [every, ⌈cols / every⌉]."""
        made = np.zeros((self.every, self.shape[1]), columns.dtype)
        for residue, row in enumerate(made):
            chosen = columns[self.column(residue) :: self.every]
            row[: len(chosen)] = chosen
        return made

    def columns(self, table: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `table`."""
        made = np.zeros(self.cols, table.dtype)
        for residue, row in enumerate(table):
            chosen = made[self.column(residue) :: self.every]
            chosen[...] = row[: len(chosen)]
        return made

    @property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many elements of the share each row and each column has."""
        ones = np.ones(self.cols, np.int64)
        across = self.table(ones).sum(axis=1)
        down = np.array([len(range(r, self.rows, self.every)) for r in range(self.every)])
        per_column = self.columns(np.repeat(down[:, None], self.shape[1], axis=1))
        return across[np.arange(self.rows) % self.every], per_column
