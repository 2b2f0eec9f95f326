"""Superposition in memory, with the signs, shuffles and units of the product.

Ablations are computed here, on float deltas, for some of them are beyond the product; all else
goes through the real bank file (`banks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from randes_cli.plan import Rect, Unit, plan_units
from randes_cli.specs import Signs, TensorInfo, Transform

F32 = NDArray[np.float32]
Delta = Mapping[str, F32]

#: What multiplies a transformed tensor: the transform's signs, a sign per element, or a Gaussian
#: number per column (the paper's RD, which is not orthogonal).
SIGNS, PER_ELEMENT, GAUSSIAN = "signs", "sign per element", "random diagonal"


@dataclass(frozen=True)
class Mixer:
    """The orthogonal maps of a bank with one seed."""

    shapes: Mapping[str, tuple[int, ...]]
    transform: Transform
    seed: int
    context: str = SIGNS

    def units(self) -> list[Unit]:
        """What is moved together."""
        return plan_units(
            [TensorInfo(name, "F32", shape) for name, shape in self.shapes.items()], self.transform
        )

    def _context(self, unit: Unit, index: int, position: int) -> F32:
        seed, name = self.seed + index, unit.names[position]
        if self.context == SIGNS or unit.signs is Signs.none:
            whole = Rect(0, unit.rows, 0, unit.cols, unit.cols)
            signs = unit.window(unit.flips(seed, position), whole, 1.0)
            return signs.values().reshape(unit.rows, unit.cols)
        chance = np.random.default_rng([seed, *name.encode()])
        if self.context == GAUSSIAN:
            return chance.standard_normal((1, unit.cols)).astype(np.float32)
        flips = chance.integers(0, 2, (unit.rows, unit.cols), np.int8)
        return (1 - 2 * flips).astype(np.float32)

    def _order(self, unit: Unit, index: int) -> list[int]:
        return unit.order(self.seed + index, index)

    def forward(self, delta: Delta, index: int) -> dict[str, F32]:
        """O_i Δ: tensors as matrices under the names of the places where they come to lie."""
        moved = {}
        for unit in self.units():
            for position, layer in enumerate(self._order(unit, index)):
                matrix = delta[unit.names[layer]].reshape(unit.rows, unit.cols)
                moved[unit.names[position]] = matrix * self._context(unit, index, position)
        return moved

    def backward(self, total: Delta, index: int) -> dict[str, F32]:
        """O_i⁻¹ S, in the shapes of the base."""
        back = {}
        for unit in self.units():
            for position, layer in enumerate(self._order(unit, index)):
                context = self._context(unit, index, position)
                matrix = total[unit.names[position]].reshape(unit.rows, unit.cols)
                made = matrix / context if self.context == GAUSSIAN else matrix * context
                name = unit.names[layer]
                back[name] = made.reshape(self.shapes[name])
        return back

    def superpose(self, members: Sequence[tuple[int, Delta]]) -> dict[str, F32]:
        """S = Σ O_i Δ_i over (index, delta)."""
        total: dict[str, F32] = {}
        for index, delta in members:
            for name, part in self.forward(delta, index).items():
                if name in total:
                    total[name] += part
                else:
                    total[name] = np.array(part)
        return total
