"""The Gram matrices of an open bank, read some at a time: of 90,000 tensors they are 0.6 GB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from randes_cli.core.arrays import F64, I64, Raw
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import GRAM
from randes_cli.plan import chunks

#: Numbers that are looked at together.
_ROOM = 2**18


class StoredGrams:
    """Cells × 2 × T × T Gram matrices where they lie, as an array is asked for some of its rows.

    For one thread. Reading raises BankDamaged where they are not those written.
    """

    def __init__(self, bank: BankFile) -> None:
        tensor = bank.info(GRAM)
        self._bank, self.shape = bank, tensor.shape
        self._chunks = chunks(*tensor.matrix)
        self._starts = np.array([rect.start for rect in self._chunks], np.int64)
        self._held: dict[int, F64] = {}

    def __getitem__(self, key: Any) -> Any:
        """Matrices by ascending numbers of cells, or of one; what follows is asked of them.

        Never write to what is returned.
        """
        cells, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(cells, slice):
            cells = np.arange(self.shape[0])[cells]
        made = self._cells(np.atleast_1d(np.asarray(cells, np.int64)))
        return (made if np.ndim(cells) else made[0])[(slice(None),) * np.ndim(cells) + (*rest,)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> F64:
        """All of them."""
        whole = np.empty(self.shape)
        for start, some in blocks(self):
            whole[start : start + len(some)] = some
        return whole if dtype is None else whole.astype(dtype)

    def _cells(self, cells: I64) -> F64:
        count = len(cells)
        if not count or not self.shape[-1]:
            return np.empty((count, *self.shape[1:]))
        if count <= _at_once(self.shape) and cells[-1] - cells[0] == count - 1:
            return self._span(int(cells[0]), int(cells[-1]) + 1)
        made, done = np.empty((count, *self.shape[1:])), 0
        while done < count:
            first = int(cells[done])
            stop = int(np.searchsorted(cells, first + _at_once(self.shape)))
            span = self._span(first, int(cells[stop - 1]) + 1)
            made[done:stop] = span[cells[done:stop] - first]
            done = stop
        return made

    def _span(self, first: int, stop: int) -> F64:
        """The matrices of cells that follow each other, out of the chunks that they lie in."""
        size = int(np.prod(self.shape[1:]))
        begin, end = first * size, stop * size
        near = range(*np.searchsorted(self._starts, [begin, end - 1], side="right") - [1, 0])
        chunks, read = self._chunks, self._bank.some_floats
        self._held = {
            n: self._held[n] if n in self._held else read(GRAM, n, chunks[n]) for n in near
        }
        parts = [
            chunk[max(0, begin - start) : max(0, end - start)]
            for start, chunk in zip(self._starts[near].tolist(), self._held.values(), strict=True)
        ]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return whole.reshape(stop - first, *self.shape[1:])


class PackedGrams:
    """Cells × 2 × T × T symmetric matrices in memory, of which half is kept.

    Attributes:
        halves: cells × 2 × T (T + 1) / 2 numbers on and above the diagonals, row by row.
        upper: their rows and columns.
    """

    def __init__(self, cells: int, tasks: int) -> None:
        self.shape, self.upper = (cells, 2, tasks, tasks), np.triu_indices(tasks)
        self.halves = np.zeros((cells, 2, len(self.upper[0])))

    def __getitem__(self, key: Any) -> Any:
        """As of an array: matrices by cell, or one of the two of each, and what follows of them."""
        cells, *rest = key if isinstance(key, tuple) else (key,)
        first, more = (cells, *rest[:1]), (..., *rest[1:])
        some = self.halves[first]
        made, (rows, columns) = np.empty((*some.shape[:-1], *self.shape[2:])), self.upper
        made[..., rows, columns] = made[..., columns, rows] = some
        return made[more] if len(rest) > 1 else made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> F64:
        """All of them."""
        whole: F64 = self[:]
        return whole if dtype is None else whole.astype(dtype)


#: Matrices in memory, or where they lie.
GramTable: TypeAlias = F64 | PackedGrams | StoredGrams


def flat_bytes(table: GramTable) -> Raw | GramBytes:
    """A statistic's bytes as a bank has them. 0.6 GB are not copied."""
    if not isinstance(table, np.ndarray):
        return GramBytes(table)
    return np.ascontiguousarray(table).reshape(-1).view(np.uint8)


class GramBytes:
    """The bytes of matrices as a bank has them, made as they are asked for."""

    def __init__(self, table: GramTable) -> None:
        self._table, self._each = table, int(np.prod(table.shape[1:])) * 8

    def __len__(self) -> int:
        return self._table.shape[0] * self._each

    def __getitem__(self, part: slice) -> Raw:
        start, stop, _ = part.indices(len(self))
        first, last = start // max(1, self._each), -(-stop // max(1, self._each))
        some = np.ascontiguousarray(self._table[np.arange(first, last)]).reshape(-1).view(np.uint8)
        return some[start - first * self._each : stop - first * self._each]


def _at_once(shape: Sequence[int]) -> int:
    """How many cells are looked at together."""
    return max(1, _ROOM // max(1, int(np.prod(shape[1:]))))


def blocks(table: GramTable) -> Any:
    """All matrices, some at a time: (the first one's number, they)."""
    step = _at_once(table.shape)
    for start in range(0, table.shape[0], step):
        yield start, table[np.arange(start, min(start + step, table.shape[0]))]


class Summing:
    """Matrices that are added up as the second of each cell's two is looked at, cells in order.

    They are added one after the other, however many are looked at together; `sums` adds those
    that nobody looked at. `group_of` is each cell's group of so many, −1 for none.
    """

    def __init__(self, table: GramTable, group_of: I64, groups: int) -> None:
        self._table, self._group_of, self._done = table, group_of, 0
        self._whole = np.zeros(table.shape[1:])
        self._made = np.zeros((groups, *table.shape[1:]))

    def __len__(self) -> int:
        return self._table.shape[0]

    def __getitem__(self, cells: I64) -> Any:
        """By ascending numbers of cells."""
        first, stop = int(cells[0]), int(cells[-1]) + 1
        self._up_to(first)
        if self._done > first or stop - first > len(cells):  # again, or with others between them
            self._up_to(stop)
            return self._table[cells, 1]
        some = self._table[cells]
        self._add(some)
        return some[:, 1]

    def sums(self) -> tuple[F64, F64]:
        """The sum of all matrices, and those of each group of cells."""
        self._up_to(len(self))
        return self._whole, self._made

    def _up_to(self, stop: int) -> None:
        step = _at_once(self._table.shape)
        while self._done < stop:
            self._add(self._table[np.arange(self._done, min(self._done + step, stop))])

    def _add(self, some: F64) -> None:
        self._whole = _more(self._whole, some)
        where = self._group_of[self._done : self._done + len(some)]
        for group in np.flatnonzero(np.bincount(where + 1)[1:]).tolist():
            mine = where == group
            self._made[group] = _more(self._made[group], some if mine.all() else some[mine])
        self._done += len(some)


def _more(total: F64, some: F64) -> F64:
    found: F64 = np.concatenate([total[None], some]).sum(axis=0)
    return found


class During:
    """The second of each cell's two matrices: of transformed deltas, as they meet."""

    def __init__(self, table: GramTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.shape[0]

    def __getitem__(self, cells: Any) -> Any:
        return self._table[cells, 1]
