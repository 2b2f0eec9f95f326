"""The method from its definition, slowly: real orthogonal matrices for tiny shapes.

Nothing here uses `randes_cli.core` or `randes_cli.plan`: layers are grouped, streams are drawn
and patterns are laid out anew, as `docs/bank-format.md` describes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_256

import numpy as np

from randes_cli.specs import Shuffle, Signs, Transform

Shapes = Mapping[str, Sequence[int]]


def stream(kind: str, seed: int, name: str, count: int) -> bytes:
    """`count` bytes of a random stream."""
    return shake_256(f"randes/1|{kind}|{seed}|{name}".encode()).digest(count)


def stream_bits(seed: int, name: str, count: int) -> list[int]:
    """`count` bits of a tensor's sign stream, least significant first."""
    data = stream("signs", seed, name, count // 8 + 1)
    return [data[k // 8] >> (k % 8) & 1 for k in range(count)]


@dataclass(frozen=True)
class OracleUnit:
    """Tensors that are superposed together: layers of one type, or one tensor."""

    kind: str
    names: tuple[str, ...]
    rows: int
    cols: int
    view: tuple[int, int]
    signs: Signs
    shuffle: Shuffle

    def permutation(self, seed: int, index: int) -> np.ndarray:
        """P with one block a layer: position p of P x is layer σ[p] of x."""
        count, size = len(self.names), self.rows * self.cols
        order = list(range(count))
        if self.shuffle is Shuffle.random:
            words = np.frombuffer(stream("shuffle", seed, self.kind, 8 * (count - 1)), "<u8")
            for word, last in zip(words.tolist(), range(count - 1, 0, -1), strict=True):
                other = word % (last + 1)
                order[last], order[other] = order[other], order[last]
        if self.shuffle is Shuffle.shift:
            order = [(position - index) % count for position in range(count)]
        return np.kron(np.eye(count)[order], np.eye(size))

    def flips(self, seed: int) -> np.ndarray:
        """D: the diagonal matrix of signs, each position with its own tensor's stream."""
        diagonal = []
        for name in self.names:
            bits = stream_bits(seed, name, self.rows + self.cols + sum(self.view))
            for element in range(self.rows * self.cols):
                i, j = divmod(element, self.cols)
                row, column = divmod(element, self.view[1])
                places: dict[Signs, tuple[int, ...]] = {
                    Signs.none: (),
                    Signs.column: (j,),
                    Signs.hankel: (i + j,),
                    Signs.two_sided: (row, self.view[0] + column),
                }
                diagonal.append((-1.0) ** sum(bits[place] for place in places[self.signs]))
        return np.diag(diagonal)

    def matrix(self, seed: int, index: int) -> np.ndarray:
        """O = D P."""
        made: np.ndarray = self.flips(seed) @ self.permutation(seed, index)
        return made

    def joined(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """The unit's tensors end to end."""
        return np.concatenate([state[name].reshape(-1) for name in self.names])


def _matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    return (1, shape[0]) if len(shape) == 1 else (int(np.prod(shape[:-1])), shape[-1])


def _squarest(shape: Sequence[int]) -> tuple[int, int]:
    best = _matrix_shape(shape)
    for cut in range(len(shape) - 1, 0, -1):
        rows, cols = int(np.prod(shape[:cut])), int(np.prod(shape[cut:]))
        best = (rows, cols) if rows + cols < sum(best) else best
    return best


def _is_target(name: str, targets: str) -> bool:
    words = {"all": "", "attn": "attn.weight", "mlp": "mlp.weight"}
    return re.search(words.get(targets, targets), name) is not None


def oracle_units(shapes: Shapes, transform: Transform) -> list[OracleUnit]:
    """Units of a model whose names have at most one layer number, each type of one shape."""
    kinds: dict[str, list[str]] = {}
    for name in shapes:
        if _is_target(name, transform.targets):
            kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    made, taken = [], set()
    for kind, names in kinds.items():
        layers = sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
        chosen = layers[:: transform.every]
        taken.update(chosen)
        shape = shapes[chosen[0]]
        rows, cols = _matrix_shape(shape)
        together = [chosen] if transform.shuffle is not Shuffle.none else [[n] for n in chosen]
        for members in together:
            parts = transform.signs, transform.shuffle
            unit = OracleUnit(kind, tuple(members), rows, cols, _squarest(shape), *parts)
            made.append(unit)
    if transform.rest == "sum":
        for name in shapes:
            if name not in taken:
                rows, cols = _matrix_shape(shapes[name])
                none = Signs.none, Shuffle.none
                made.append(OracleUnit(name, (name,), rows, cols, (rows, cols), *none))
    return made


def superposition(
    unit: OracleUnit,
    base: Mapping[str, np.ndarray],
    tasks: Sequence[Mapping[str, np.ndarray]],
    seeds: Sequence[int],
    exponent: int,
) -> np.ndarray:
    """S = Σ_i O_i round((Θ_i − Θ_0) / step), in float64, where all of it is exact."""
    total = np.zeros(len(unit.names) * unit.rows * unit.cols)
    for index, (task, seed) in enumerate(zip(tasks, seeds, strict=True)):
        delta = unit.joined(task) - unit.joined(base)
        total += unit.matrix(seed, index) @ np.rint(delta.astype(np.float64) / 2.0**exponent)
    return total


def retrieval(
    unit: OracleUnit,
    base: Mapping[str, np.ndarray],
    stored: np.ndarray,
    seed: int,
    index: int,
    scale: float,
) -> np.ndarray:
    """Θ_0 + λ·step · O⁻¹ S with `scale` = λ·step, the last two operations in float32."""
    back = np.linalg.inv(unit.matrix(seed, index)) @ stored
    made: np.ndarray = unit.joined(base) + np.rint(back).astype(np.float32) * np.float32(scale)
    return made
