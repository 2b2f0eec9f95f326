"""Values of a few runs of rows of a tensor, read together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.convert import widen
from randes_cli.plan import Rect
from randes_cli.specs import ITEM_SIZE

if TYPE_CHECKING:
    from randes_cli.build.strips import Source

F32 = NDArray[np.float32]

#: Elements of the base's samples that are kept while the tasks are gone through.
_KEPT = 2**20


def read_runs(source: Source, name: str, runs: Sequence[Rect]) -> F32:
    """The float32 values of `runs`, one after the other; zeros below the tensor's last row."""
    tensor = source.tensors[name]
    size, place = ITEM_SIZE[tensor.dtype], 0
    raw = np.zeros(sum(rect.elements for rect in runs) * size, np.uint8)
    for rect in runs:
        inside = rect.above(tensor.matrix[0])
        if inside is not None:
            source.read(name, rect.start * size, raw[place : place + inside.elements * size])
        place += rect.elements * size
    values = np.empty(len(raw) // size, np.float32)
    widen(raw, tensor.dtype, values)
    return values


def clear_below(values: F32, rows: int, runs: Sequence[Rect]) -> None:
    """Set the elements of `runs` that lie below the first `rows` rows to zero."""
    place = 0
    for rect in runs:
        inside = rect.above(rows)
        values[place + (inside.elements if inside else 0) : place + rect.elements] = 0
        place += rect.elements


class BaseSample:
    """The base on some runs of rows, read once for all tasks. For one thread."""

    def __init__(self, source: Source | None, runs: Sequence[Rect]) -> None:
        self.source, self.runs = source, runs
        self._values: dict[str, F32] = {}

    @property
    def elements(self) -> int:
        """Elements of all runs together."""
        return sum(rect.elements for rect in self.runs)

    def values(self, name: str) -> F32 | None:
        """The base's values, all runs together; None where the base is zero."""
        if self.source is None:
            return None
        if name not in self._values:
            if (len(self._values) + 1) * self.elements > _KEPT:
                self._values.clear()
            self._values[name] = read_runs(self.source, name, self.runs)
        return self._values[name]
