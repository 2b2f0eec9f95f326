"""Tensors as columns: what dtype and shape alone tell of each is found once for every kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any
from weakref import ref

import numpy as np

from randes_cli.core.arrays import I64, Array, Bools
from randes_cli.specs import Kind, Table, TensorInfo, Tensors, once

#: Tuples of names whose numbers are kept: each thread has one or two at hand.
_KEPT = 4


class Some(tuple[str, ...]):
    """Some names of a longer tuple, which is looked up once for all of its parts.

    Attributes:
        whole: the longer one.
        places: where these stand in it.
    """

    whole: tuple[str, ...]
    places: I64

    @classmethod
    def of(cls, whole: tuple[str, ...], places: I64) -> Some:
        made = cls(map(whole.__getitem__, places.tolist()))
        made.whole, made.places = whole, places
        return made

    def some(self, rows: I64) -> Some:
        """Those of these rows."""
        return self if len(rows) == len(self) else Some.of(self.whole, self.places[rows])


class Columns:
    """Tensors by number, in their order.

    Attributes:
        names: of them.
        kinds: one tensor without a name of each dtype and shape.
        kind_of: the number of each tensor's kind.
    """

    def __init__(self, names: Iterable[str], kinds: Iterable[Kind], kind_of: I64) -> None:
        #: What keeps these columns: neither is to wait for a look for rings of objects.
        self._table = ref(names) if isinstance(names, Table) else None
        self.names = names.names if isinstance(names, Table) else list(names)
        self.kind_of = kind_of
        self.kinds = [TensorInfo("", *kind) for kind in kinds]
        self._asked: list[tuple[tuple[str, ...], I64]] = []

    def of(self, find: Callable[[TensorInfo], Any], dtype: type = np.int64) -> Array:
        """What a function tells of each tensor's kind."""
        return np.array([find(kind) for kind in self.kinds], dtype)[self.kind_of]

    def where(self, find: Callable[[TensorInfo], bool]) -> Bools:
        """The tensors of whose kind a function says so."""
        return self.of(find, np.bool_)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each tensor's number."""
        table = None if self._table is None else self._table()
        if table is not None:
            return table.numbers
        return {name: number for number, name in enumerate(self.names)}

    def at(self, names: Iterable[str]) -> I64:
        """The numbers of tensors by name, −1 for what is none of them.

        Names that follow each other as here are compared, not looked up. Of the same tuple again,
        as one source after the other is asked, they are known.
        """
        if isinstance(names, Some):
            return self.at(names.whole)[names.places]
        for known, found in self._asked:
            if names is known:
                return found
        made = self._find(list(names))
        if isinstance(names, tuple):
            made.setflags(write=False)
            self._asked = [(names, made), *self._asked[: _KEPT - 1]]
        return made

    def _find(self, names: list[str]) -> I64:
        first = self.numbers.get(names[0], -1) if names else -1
        if first >= 0 and self.names[first : first + len(names)] == names:
            return np.arange(first, first + len(names))
        return np.fromiter(map(self.numbers.get, names, repeat(-1)), np.int64, len(names))


#: What a tensor is that is not there.
_NOTHING: Kind = ("U8", (0,))


def some_columns(tensors: Tensors, names: Sequence[str]) -> Columns:
    """Some tensors as columns; one that is not there has no elements."""
    if isinstance(tensors, Table):
        whole = columns(tensors)
        rows = whole.at(names)
        kinds = [*(kind[1:] for kind in whole.kinds), _NOTHING]
        lacking = len(kinds) - 1
        if not len(whole.kind_of):
            return Columns(names, kinds, np.full(len(names), lacking))
        return Columns(names, kinds, np.where(rows < 0, lacking, whole.kind_of[rows]))
    found = [tensors[name][1:] if name in tensors else _NOTHING for name in names]
    return Columns(names, *_numbered(found))


def alike(one: Tensors, other: Tensors) -> bool:
    """Whether two tables are of the same tensors in the same order; no word of what is no table."""
    if one is other:
        return True
    if not isinstance(one, Table) or not isinstance(other, Table) or one.names != other.names:
        return False
    ours, theirs = columns(one), columns(other)
    numbers = {kind: number for number, kind in enumerate(ours.kinds)}
    same = np.array([numbers.get(kind, -1) for kind in theirs.kinds], np.int64)
    return bool((same[theirs.kind_of] == ours.kind_of).all())


def columns(tensors: Tensors) -> Columns:
    """Tensors as columns, those of a table once."""
    return once(_columns, tensors)


#: Tensors from which on they are looked up together.
_MANY = 2**8


def bytes_of(tensors: Tensors, names: Collection[str]) -> int:
    """Bytes of those of some tensors that are there."""
    if len(names) < _MANY or not isinstance(tensors, Table):
        return sum(tensors[name].nbytes for name in names if name in tensors)
    found = columns(tensors)
    rows = found.at(names)
    return int(found.of(attrgetter("nbytes"))[rows[rows >= 0]].sum())


def _columns(tensors: Tensors) -> Columns:
    kinds = list(map(itemgetter(1, 2), tensors.values()))
    return Columns(tensors if isinstance(tensors, Table) else tensors.keys(), *_numbered(kinds))


def _numbered(found: Sequence[Kind]) -> tuple[list[Kind], I64]:
    """Every kind once, and the number of each that was found."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(found))}
    return list(numbers), np.fromiter(map(numbers.__getitem__, found), np.intp, len(found))


def table_of(
    names: Iterable[str], kinds: Sequence[Kind], kind_of: I64, numbers: dict[str, int] | None = None
) -> Table:
    """The table of tensors whose columns are known, each name there once."""
    made = Table.of_columns(list(names), kinds, kind_of, numbers)
    made.learn(_columns, Columns(made, kinds, kind_of))
    return made


def typed_table(names: Iterable[str], kinds: Sequence[Kind]) -> Table:
    """The table of tensors of these names and kinds."""
    return table_of(names, *_numbered(kinds))


def joined(tables: Sequence[Table], rows: Sequence[I64]) -> Table:
    """Some tensors of each of several tables, by number, as one table.

    Whoever asks sees to it that none is there twice (`Table.numbers` has fewer then).
    """
    names, kinds, parts = list[str](), dict[Kind, int](), list[I64]()
    for table, some in zip(tables, rows, strict=True):
        found = columns(table)
        mine = [kinds.setdefault((kind.dtype, kind.shape), len(kinds)) for kind in found.kinds]
        parts.append(np.array(mine, np.intp)[found.kind_of[some]])
        names += map(table.names.__getitem__, some.tolist())
    return table_of(names, list(kinds), np.concatenate(parts))
