"""Chunks that compiled code does by itself, from reading files to writing sums: see `run.c`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from randes_cli.core.arrays import I64, Array, Bools, Raw, address
from randes_cli.specs import Signs

#: Bytes of an input whose digest may be of several pieces.
SHORTEST = 241
#: Elements that are computed at once: all of a strip stays in a core's own cache, and reads are of
#: 128 KiB, which the system takes a fifth less time for than for twice as many of 64.
_STRIP = 2**16
DTYPES = {"F32": 0, "BF16": 1, "F16": 2}
SIGNS = {Signs.none: 0, Signs.column: 1, Signs.hankel: 2, Signs.two_sided: 3}
#: (descriptor, offset) of a chunk's first byte in a file.
Place: TypeAlias = tuple[int, int]
NOWHERE: Place = (-1, 0)


class Kind(IntEnum):
    """What a step does: as in run.c."""

    BASE = 0
    BEGIN = 1
    ADD = 2
    STORE = 3
    NOTHING = 4


@dataclass(frozen=True, slots=True)
class Chunk:
    """Elements `first` to `first` + `count` of a unit.

    `view` is the matrix that two-sided signs see; `cols` are those of the one that all else does.
    """

    first: int
    count: int
    cols: int
    view: tuple[int, int]
    signs: Signs


class Step(NamedTuple):
    """One step that each strip of a chunk goes through; see run.c.

    Attributes:
        place: where the chunk lies; None: all zeros.
        to: where it is written to, a file or memory (then it has no digest); None: nowhere.
        bits: those of signs, and `scale` what they multiply.
        squares: of a sum: what the squares of its rows, from the chunk's first one on, and of its
            columns, in the view, are added to.
    """

    kind: Kind
    place: Place | None
    dtype: str
    layer: int = 0
    to: Place | Raw | None = None
    bits: bytes = b""
    scale: float = 0.0
    squares: tuple[I64, I64] | None = None


def named(words: str, kind: Any) -> list[tuple[str, Any]]:
    """Fields of a structure, all of one kind."""
    return [(word, kind) for word in words.split()]


#: The sums of a delta, as in fused.h.
FOUND = (
    ("squares", ctypes.c_uint64),
    ("crossed", ctypes.c_int64),
    ("rests", ctypes.c_uint64),
    ("changed", ctypes.c_uint32),
    ("beyond", ctypes.c_uint32),
)


class _Made(ctypes.Structure):
    _fields_ = (
        *FOUND,
        ("digest", ctypes.c_uint8 * 16),
        ("running", ctypes.c_uint64 * 17),
    )


class _Run(ctypes.Structure):
    _fields_ = (
        *named("first count cols rows view_cols strip kind steps most", ctypes.c_int64),
        *named("base scratch sum raw", ctypes.c_void_p),
    )


#: The records of run.c as columns: for many small chunks, of which none has a Python object.
STEPS = np.dtype(
    [
        *named("kind from at into to dtype layer", "i8"),
        *(*named("bits memory along across", "u8"), ("scale", "f8")),
    ]
)
RUNS, MADE = np.dtype(_Run), np.dtype(_Made)

#: As in chunk.h.
_UNWRITTEN = -1000


def refuse_unwritten(failed: int) -> None:
    """Raise OSError where a call ended with a write that failed."""
    if failed <= _UNWRITTEN:
        raise OSError(_UNWRITTEN - failed, "")  # in words where the file is known


class Runner:
    """Runs chunks in a kernel's buffers, of `elements` (for each of its layers)."""

    def __init__(self, library: ctypes.CDLL, elements: int, **buffers: int) -> None:
        self._function, self._many = library.randes_run, library.randes_run_many
        self._run = _Run(strip=min(_STRIP, elements) // 64 * 64, most=2**15 - 1, **buffers)

    def run(self, chunk: Chunk, steps: Array) -> Array | None:
        """What each step, a row of `STEPS`, found: rows of `MADE`.

        None where anything kept the chunk from its end: then nothing counts that was written, and
        it is to be done again step by step. Raises OSError where a write failed.
        """
        run = self._run
        if not run.strip or not chunk.count:
            return None
        run.first, run.count, run.cols = chunk.first, chunk.count, chunk.cols
        run.rows, run.view_cols = chunk.view
        run.kind, run.steps = SIGNS[chunk.signs], len(steps)
        made = np.zeros(len(steps), MADE)
        failed = self._function(ctypes.byref(run), _place(steps), _place(made))
        refuse_unwritten(failed)
        return None if failed else made

    def run_many(self, runs: Array, steps: Array) -> tuple[Array, Bools] | None:
        """Run small chunks, each a row of `RUNS` and of `STEPS`: what each step made, by row.

        And which chunks came to their end. Places of a row without a step have NOTHING. Raises
        OSError where a write failed.
        """
        run = self._run
        if not run.strip:
            return None
        runs["strip"], runs["most"], runs["steps"] = run.strip, run.most, steps.shape[1]
        for word in ("base", "scratch", "sum", "raw"):
            runs[word] = getattr(run, word)
        made, failed = np.zeros(steps.shape, MADE), np.empty(len(runs), np.int64)
        places = map(_place, (steps, made, failed))
        self._many(_place(runs), ctypes.c_int64(len(runs)), *places)
        refuse_unwritten(int(failed.min(initial=0)))
        return made, np.asarray(failed == 0)


def _place(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def packed(steps: Sequence[Step]) -> Array | None:
    """Steps as rows of `STEPS`, which are good as long as `steps` are; None of another dtype."""
    if not all(step.dtype in DTYPES or step.kind in _OF_SUMS for step in steps):
        return None
    return np.array([*map(_packed, steps)], STEPS)


_OF_SUMS = (Kind.BEGIN, Kind.STORE)


def _packed(step: Step) -> tuple[Any, ...]:
    dtype = int(step.dtype) if step.kind in _OF_SUMS else DTYPES[step.dtype]
    at, to, memory = step.place or NOWHERE, NOWHERE, 0
    if isinstance(step.to, tuple):
        to = step.to
    elif step.to is not None:
        memory = address(step.to)
    squares = map(address, step.squares) if step.squares else (0, 0)
    bits = address(np.frombuffer(step.bits, np.uint8)) if step.bits else 0
    return step.kind, *at, *to, dtype, step.layer, bits, memory, *squares, step.scale
