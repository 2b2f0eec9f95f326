"""A task as factors of a product: signs of rows and of columns, and the superposition between.

Where the signs of element (i, j) are a[i] · b[j], a task's delta is diag(a) S diag(b) times a
number, so one product with S serves a batch whose rows are different tasks:

    y = x W₀ᵀ + λ · 2^step · a ∘ ((x ∘ b) Sᵀ)

for a weight whose rows are outputs and whose columns are inputs. In a sealed group S is the
levels of its codes, and a and b are multiplied by the scales of rows and of columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from randes_cli.core.arrays import F32, I8, Array
from randes_cli.core.kernel import code_dtype
from randes_cli.core.share import Share
from randes_cli.core.signs import sign_vector
from randes_cli.plan import Unit
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import ITEM_SIZE, Signs


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """What one task makes of a superposition.

    Attributes:
        held: the base's tensor under whose name the superposition is kept (another layer's
            where the bank shuffles).
        group: the superposition's group.
        view: (R, C), the matrix that the tensor is seen as.
        a: signs of its rows, ±1, [R].
        b: signs of its columns, ±1, [C].
        step: exponent e; an integer of the superposition is worth 2^e.
        scales: float32 scales of rows and of columns in a sealed superposition, else None.
        share: which elements the superposition has (see `core.share`); what is there counts
            `share.every` times, all else is zero.
    """

    held: str
    group: int
    view: tuple[int, int]
    a: I8
    b: I8
    step: int
    scales: tuple[F32, F32] | None
    share: Share


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Signs that do not factor, and all else that a task makes of a superposition.

    Attributes:
        factors: with signs of rows and columns that are all 1.
        matrix: (rows, columns) that the signs are of.
        signs: ±1: element (i, j) of the matrix has the one of i + j (`hankel`), or of j.
    """

    factors: Factors
    matrix: tuple[int, int]
    signs: I8
    hankel: bool


def factors_of(retrieval: Retrieval, name: str) -> Factors | Pattern | None:
    """What a task makes of a tensor of the base; None where it has nothing superposed there.

    (It is then the base's, or the task's own.) λ is `retrieval.coefficient`. Raises BankDamaged.
    """
    if _nothing(retrieval, name):
        return None
    unit, position = retrieval.place(name)
    flips, hankel = unit.flips(retrieval.task.seed, position), unit.signs is Signs.hankel
    if not hankel and (unit.signs is not Signs.column or (unit.rows, unit.cols) == unit.view):
        return _factors(retrieval, name, *_signs(unit, flips))
    signs = _vector(flips, 0, unit.cols + (unit.rows - 1 if hankel else 0))
    ones = (np.ones(size, np.int8) for size in unit.view)
    return Pattern(_factors(retrieval, name, *ones), (unit.rows, unit.cols), signs, hankel)


def _nothing(retrieval: Retrieval, name: str) -> bool:
    task = retrieval.task
    alone = name in task.missing and name not in task.ties
    return (alone and name not in task.ties.values()) or not retrieval.superposed(name)


def _factors(retrieval: Retrieval, name: str, rows: I8, columns: I8) -> Factors:
    held = retrieval.held(name)
    cut = retrieval.bank.info(retrieval.sum_key(name)).dtype == "U8"
    return Factors(
        held=held.name,
        group=retrieval.task.group,
        view=(len(rows), len(columns)),
        a=rows,
        b=columns,
        step=retrieval.bank.manifest.steps[held.name],
        scales=retrieval.reader.scales(held) if cut else None,
        share=retrieval.share(name),
    )


def _signs(unit: Unit, flips: bytes) -> tuple[I8, I8]:
    rows, cols = unit.view
    if unit.signs is Signs.two_sided:
        return _vector(flips, 0, rows), _vector(flips, rows, cols)
    columns = np.ones(cols, np.int8) if unit.signs is Signs.none else _vector(flips, 0, cols)
    return np.ones(rows, np.int8), columns


def _vector(flips: bytes, start: int, count: int) -> I8:
    return sign_vector(flips, start, count).astype(np.int8)


def superposition(retrieval: Retrieval, name: str) -> Array:
    """S of a tensor of a task as a matrix of its `share`: the group's, whichever task asks.

    That is its `view` where the share is all of it.

    int16 or int8 where it is live, float32 levels where it is sealed. Checked against the
    bank's digests. Raises BankDamaged.
    """
    key = retrieval.sum_key(name)
    info = retrieval.bank.info(key)
    held = retrieval.held(name)
    if info.dtype == "U8":
        return retrieval.reader.levels(held)
    raw = retrieval.bank.read_whole(key)
    units: Array = raw.view(code_dtype(8 * ITEM_SIZE[info.dtype]))
    return units.reshape(retrieval.share(name).shape)
