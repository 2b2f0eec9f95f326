"""Ideas that are not in the product, each beside the product's own way at the same bits.

Deltas are superposed in memory with the product's signs and cut to its levels; only what an idea
changes differs. Vectors are summed whole, as in the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from zlib import crc32

import numpy as np
from methods import F32, FIXED, Method, Models, Packed
from superposition import Mixer

from randes_cli.core.levels import gain, levels, thresholds
from randes_cli.plan import sealable
from randes_cli.specs import TensorInfo, Transform

#: A matrix that stands in for another: (matrix, name, chance) to what is read of it later.
Cut = Callable[[F32, str, np.random.Generator], F32]
#: Numbers in a vector that is cut as one, and how many vectors there are to choose from.
VECTOR, WORDS = 8, 16


@dataclass(frozen=True)
class Idea:
    """How matrices of a superposition are cut, and what bits an element that takes in all.

    Attributes:
        groups: superpositions; 0: one a task, and `bits` are of each.
        after: what is done to a task's delta when it comes back, given (delta, noise energy).
        mean: how the mean of a group's deltas is kept beside their superposition, if it is.
    """

    name: str
    bits: float
    cut: Cut
    groups: int = 1
    after: Callable[[F32, float], F32] | None = None
    mean: Cut | None = None


def prototype(idea: Idea) -> Callable[[Models, int], Packed]:
    """All models of a bed, by an idea; its bytes are of codes and of scales by row and column."""

    def build(models: Models, seed: int) -> Packed:
        mixer = Mixer(models.shapes, Transform.from_preset("two-sided"), seed)
        groups = [models.tasks[n :: idea.groups] for n in range(idea.groups)]
        made: dict[str, Mapping[str, F32]] = {}
        for number, tasks in enumerate(groups):
            made.update(_group(idea, models, mixer, tasks, [seed, number]))
        return Packed(_bytes(idea, models), lambda task, knob: models.state(made[task], knob))

    return build


def _group(
    idea: Idea, models: Models, mixer: Mixer, tasks: list[str], seeds: list[int]
) -> Mapping[str, Mapping[str, F32]]:
    deltas = {task: models.deltas[task] for task in tasks}
    kept: dict[str, F32] = {}
    if idea.mean is not None:
        whole = {n: np.mean([d[n] for d in deltas.values()], axis=0) for n in models.names}
        kept = {
            n: _each(idea.mean, value, n, models.shapes[n], seeds) for n, value in whole.items()
        }
        deltas = {task: {n: d[n] - kept[n] for n in d} for task, d in deltas.items()}
    places = {task: models.tasks.index(task) for task in tasks}
    total = mixer.superpose([(places[task], delta) for task, delta in deltas.items()])
    cut = {
        name: _each(idea.cut, value, name, models.shapes[name], seeds)
        for name, value in total.items()
    }
    made = {}
    for task, delta in deltas.items():
        back = mixer.backward(cut, places[task])
        if idea.after is not None:
            back = {n: _denoised(idea.after, back[n], delta[n]) for n in back}
        made[task] = {n: back[n] + kept[n] if kept else back[n] for n in back}
    return made


def _each(cut: Cut, value: F32, name: str, shape: tuple[int, ...], seeds: list[int]) -> F32:
    matrix = value.reshape(_matrix(shape))
    if not sealable(TensorInfo(name, "F32", matrix.shape)):
        return value
    chance = np.random.default_rng([*seeds, crc32(name.encode())])
    return cut(matrix, name, chance).reshape(value.shape).astype(np.float32)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    count = int(np.prod(shape))
    rows = shape[0] if len(shape) > 1 else 1
    return rows, count // rows


def _denoised(after: Callable[[F32, float], F32], back: F32, delta: F32) -> F32:
    if back.ndim < 2 or min(back.shape) == 1:
        return back
    noise = max(0.0, float(np.square(back).sum() - np.square(delta).sum()))
    return after(back.reshape(len(back), -1), noise).reshape(back.shape)


def _bytes(idea: Idea, models: Models) -> int:
    size = models.base_bytes
    for shape in models.shapes.values():
        rows, columns = _matrix(shape)
        count, scales = rows * columns, 4 * (rows + columns) * idea.groups
        cut = sealable(TensorInfo("", "F32", (rows, columns)))
        size += int(count * idea.bits / 8) + scales if cut else 2 * count * idea.groups
    return size


# How a matrix is cut


@cache
def _table(bits: int) -> tuple[F32, F32]:
    return levels(bits) * np.float32(gain(bits)), thresholds(bits)


def _scales(matrix: F32) -> F32:
    """What each element is expected to be: a scale for its row times one for its column."""
    square = np.square(matrix.astype(np.float64)) + 1e-30
    columns = np.ones((1, matrix.shape[1]))
    rows = np.ones((len(matrix), 1))
    for _ in range(3):
        rows = (square / columns).mean(axis=1, keepdims=True)
        columns = (square / rows).mean(axis=0, keepdims=True)
    return np.sqrt(rows * columns).astype(np.float32)


def plain(bits: int) -> Cut:
    """As the product does."""

    def cut(matrix: F32, _: str, chance: np.random.Generator) -> F32:
        values, middles = _table(bits)
        scale = _scales(matrix)
        return values[np.searchsorted(middles, matrix / scale)] * scale

    return cut


def shared(bits: int, every: int) -> Cut:
    """One element in `every` of each matrix, in diagonals, as the product's shares."""

    def cut(matrix: F32, _: str, chance: np.random.Generator) -> F32:
        rows, columns = np.indices(matrix.shape)
        there = (rows + columns + int(chance.integers(every))) % every == 0
        return _there(matrix, there, np.float32(every), bits)

    return cut


def _there(matrix: F32, there: np.ndarray, factor: F32 | np.float32, bits: int) -> F32:
    values, middles = _table(bits)
    scale = _scales(np.where(there, matrix, _scales(matrix)))
    codes = np.searchsorted(middles, matrix / scale)
    return np.where(there, values[codes] * scale * factor, 0).astype(np.float32)


def by_spread(models_share: float, bits: int) -> Cut:
    """A share of the elements that grows with how far a row's values spread."""

    def cut(matrix: F32, _: str, chance: np.random.Generator) -> F32:
        spread = np.sqrt(np.square(matrix).mean(axis=1, keepdims=True)) + 1e-20
        share = spread / spread.mean() * models_share
        for _step in range(20):  # what rows have too much goes to the others
            share = np.minimum(1, share * models_share / np.minimum(1, share).mean())
        there = chance.random(matrix.shape) < share
        return _there(matrix, there, (1 / share).astype(np.float32), bits)

    return cut


def rotated(inner: Cut) -> Cut:
    """Between block-Hadamard rotations of rows and of columns."""

    def cut(matrix: F32, name: str, chance: np.random.Generator) -> F32:
        both = np.array([-1, 1], np.float32)
        signs: list[F32] = [chance.choice(both, size) for size in matrix.shape]
        turned = _turn(_turn(matrix * signs[0][:, None] * signs[1]).T).T
        back = _turn(_turn(inner(turned, name, chance)).T).T
        return back * signs[0][:, None] * signs[1]

    return cut


def _turn(matrix: F32) -> F32:
    """H along the columns, in blocks of the largest power of two that divides their number."""
    rows, columns = matrix.shape
    block = columns & -columns
    blocks, half = matrix.reshape(rows, -1, block), 1
    while half < block:
        pairs = blocks.reshape(rows, -1, 2, half)
        sums = (pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1])
        blocks, half = np.stack(sums, axis=2), 2 * half
    return (blocks.reshape(rows, columns) / np.sqrt(block)).astype(np.float32)


def fed_back(bits: int) -> Cut:
    """Each element takes the rounding error of the one before it in its row."""

    def cut(matrix: F32, _: str, chance: np.random.Generator) -> F32:
        values, middles = _table(bits)
        scale, made = _scales(matrix), np.empty_like(matrix)
        error = np.zeros(len(matrix), np.float32)
        for column in range(matrix.shape[1]):
            wanted = matrix[:, column] + error
            width = scale[:, column]
            made[:, column] = values[np.searchsorted(middles, wanted / width)] * width
            error = np.clip(wanted - made[:, column], -2 * width, 2 * width)
        return made

    return cut


def in_vectors(matrix: F32, _: str, chance: np.random.Generator) -> F32:
    """Half a bit an element: eight numbers of a row become the nearest of sixteen vectors."""
    book, kept = _book()
    scale = _scales(matrix)
    flat = np.pad((matrix / scale).reshape(-1), (0, -matrix.size % VECTOR))
    parts = flat.reshape(-1, VECTOR)
    nearest = (parts @ book.T - np.square(book).sum(axis=1) / 2).argmax(axis=1)
    made: F32 = book[nearest].reshape(-1)[: matrix.size].reshape(matrix.shape) * scale / kept
    return made


@cache
def _book() -> tuple[F32, float]:
    """The vectors, by Lloyd's iteration on Gaussian numbers, and the energy that they keep."""
    chance = np.random.default_rng(0)
    sample = chance.standard_normal((100_000, VECTOR), np.float32)
    book = sample[:WORDS].copy()
    for _step in range(60):
        nearest = (sample @ book.T - np.square(book).sum(axis=1) / 2).argmax(axis=1)
        book = np.array([sample[nearest == word].mean(axis=0) for word in range(WORDS)])
    nearest = (sample @ book.T - np.square(book).sum(axis=1) / 2).argmax(axis=1)
    return book, float(np.square(book[nearest]).mean())


def shrunk(matrix: F32, noise: float) -> F32:
    """Singular values shrunk as is best for noise of this energy (Gavish and Donoho 2017)."""
    rows, columns = matrix.shape
    ratio = min(rows, columns) / max(rows, columns)
    unit = np.sqrt(noise / matrix.size * max(rows, columns))
    left, found, right = np.linalg.svd(matrix, full_matrices=False)
    y = np.maximum(found / max(unit, 1e-20), 1e-9)
    inside = np.maximum((y**2 - ratio - 1) ** 2 - 4 * ratio, 0)
    kept = np.where(y > 1 + np.sqrt(ratio), np.sqrt(inside) / y, 0) * unit
    made: F32 = ((left * kept) @ right).astype(np.float32)
    return made


IDEAS = (
    Idea("1 bit on 1/2", 0.5, shared(1, 2)),
    Idea("1 bit on 1/2, by spread of rows", 0.5, by_spread(0.5, 1)),
    Idea("1/2 bit, eight numbers as one of 16 vectors", 0.5, in_vectors),
    Idea("1 bit on 1/2, singular values shrunk", 0.5, shared(1, 2), after=shrunk),
    Idea("1 bit on 1/2, rotated", 0.5, rotated(shared(1, 2))),
    Idea("1/2 bit, eight numbers as one of 16 vectors, rotated", 0.5, rotated(in_vectors)),
    Idea("1 bit on 1/4, the mean on 1/4", 0.5, shared(1, 4), mean=shared(1, 4)),
    Idea("1 bit", 1, plain(1)),
    Idea("1 bit, rotated", 1, rotated(plain(1))),
    Idea("1 bit, errors fed back", 1, fed_back(1)),
    Idea("1 bit on 1/2, the mean on 1/2", 1, shared(1, 2), mean=shared(1, 2)),
    Idea("2 bit", 2, plain(2)),
    Idea("2 bit, rotated", 2, rotated(plain(2))),
    Idea("2 x 1 bit", 2, plain(1), groups=2),
    Idea("2 x 1 bit, rotated", 2, rotated(plain(1)), groups=2),
    Idea("4 x 1 bit", 4, plain(1), groups=4),
    Idea("4 x 1 bit, rotated", 4, rotated(plain(1)), groups=4),
    Idea("own 1 bit", 1, plain(1), groups=0),
    Idea("own 1 bit, rotated", 1, rotated(plain(1)), groups=0),
    Idea("own 2 bit", 2, plain(2), groups=0),
    Idea("own 2 bit, rotated", 2, rotated(plain(2)), groups=0),
)


def rows(tasks: int = 8) -> list[Method]:
    """A method for each idea."""
    return [
        Method(f"prototype {idea.name}", "prototype", prototype(_for(idea, tasks)), FIXED, True)
        for idea in IDEAS
    ]


def _for(idea: Idea, tasks: int) -> Idea:
    """An idea whose groups are known."""
    if idea.groups:
        return idea
    return replace(idea, groups=tasks, bits=tasks * idea.bits)
