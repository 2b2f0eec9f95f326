"""Zeros in the place of values: copies that were cut off or damaged and have the right size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import numpy as np

from randes_cli.errors import first_of
from randes_cli.files.local.guard import reads_far
from randes_cli.files.source import Source, place_of
from randes_cli.specs import FLOAT_DTYPES

#: Bytes that are looked at: of each file's end, and of the middle of so many matrices at most.
_LOOK, _MOST = 256, 1000
#: Bytes of a tensor below which zeros tell nothing.
_LEAST = 64


def zeros_in_place(base: Source, task: Source) -> tuple[str, ...]:
    """What to say of a task whose files have zeros where the base has values."""
    names = list(task.tensors)
    if not names or reads_far() or place_of(task, names[-1]) is None:
        return ()
    found = [name for name in _last_ones(task, names) if _lacks(base, task, name, 1.0)]
    some = names[:: 1 + len(names) // _MOST]
    matrices = (name for name in some if len(task.tensors[name].shape) > 1)
    found += [name for name in matrices if _lacks(base, task, name, 0.5)]
    if not found:
        return ()
    text = f"zeros where the base has values ({first_of(list(dict.fromkeys(found)), 3)})"
    return (f"{text}: is it a copy or a download that was cut off?",)


def _last_ones(task: Source, names: list[str]) -> Iterator[str]:
    """The last tensor of each file here; tensors are in the order of their files and data."""

    def file(number: int) -> int:
        return (place_of(task, names[number]) or (-1, 0))[0]

    last = len(names) - 1
    while last >= 0 and file(last) >= 0:
        yield names[last]
        last = _first_like(file, last) - 1


def _first_like(file: Callable[[int], int], last: int) -> int:
    """The number of the first tensor that is in one file with the last."""
    this = file(last)
    return bisect_left(range(last), True, key=lambda number: file(number) == this)


def _lacks(base: Source, task: Source, name: str, place: float) -> bool:
    """Whether a task has zeros at some place (a share) of a tensor, and the base has none there.

    A flag, a mask or a few numbers may well be zero.
    """
    tensor = task.tensors[name]
    if tensor.dtype not in FLOAT_DTYPES or tensor.nbytes < _LEAST or name not in base.tensors:
        return False
    return _zero(task, name, place) and not _zero(base, name, place)


def _zero(source: Source, name: str, place: float) -> bool:
    nbytes = source.tensors[name].nbytes
    made = np.empty(min(_LOOK, nbytes), np.uint8)
    source.read(name, int((nbytes - len(made)) * place), made)
    return not made.any()
