"""What the beds compare: each method packs the fine-tunes once and gives any of them back.

A method returns its bytes as they would lie on disk, the base (or whatever replaces it)
included. `knob` is λ, but for the methods whose own paper tunes something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from beds import Bed, StateDict, load
from numpy.typing import NDArray
from superposition import SIGNS, Delta, Mixer

from randes_cli.specs import Transform

F32 = NDArray[np.float32]

LAMBDAS = tuple(round(0.1 * step, 1) for step in range(10, 0, -1))
FIXED = (1.0,)


class Models:
    """A bed's base and deltas in memory."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.base = load(bed.base)
        self.names = [name for name, tensor in self.base.items() if tensor.is_floating_point()]
        self.shapes = {name: tuple(self.base[name].shape) for name in self.names}
        self.tasks = list(bed.tasks)
        self.deltas = {task: self._delta(load(path)) for task, path in bed.tasks.items()}

    def _delta(self, state: StateDict) -> dict[str, F32]:
        return {name: (state[name] - self.base[name]).numpy() for name in self.names}

    @property
    def base_bytes(self) -> int:
        """The base's tensors in float32."""
        return sum(tensor.nbytes for tensor in self.base.values())

    @property
    def elements(self) -> int:
        """Values of one delta."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def state(self, delta: Delta, coefficient: float) -> StateDict:
        """Θ_0 + λ Δ."""
        moved = {
            name: self.base[name] + coefficient * torch.from_numpy(np.ascontiguousarray(part))
            for name, part in delta.items()
        }
        return {**self.base, **moved}

    def cosine(self, task: str, state: StateDict) -> float:
        """Cosine of a task's delta and of what a state dict has in its place."""
        found = {name: (state[name] - self.base[name]).numpy() for name in self.names}
        mine = self.deltas[task]
        dots = [
            sum(float(np.vdot(left[name], right[name])) for name in self.names)
            for left, right in ((mine, found), (mine, mine), (found, found))
        ]
        return dots[0] / float(np.sqrt(dots[1] * dots[2])) if dots[1] * dots[2] else 0.0

    def matrices(self) -> list[str]:
        """Names of the tensors with two dimensions."""
        return [name for name in self.names if len(self.shapes[name]) == 2]


@dataclass(frozen=True)
class Packed:
    """All models of a bed, packed.

    Attributes:
        nbytes: on disk.
        restore: (task, knob) to a state dict.
        defaults: λ by task where a bank knows one without being tuned.
        facts: of a bank, what it was packed with and the noise of its tasks.
    """

    nbytes: int
    restore: Callable[[str, float], StateDict]
    defaults: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        knobs: values tried on the validation part, from one end to the other; none where the bank's
            own default λ is to be taken.
        seeds: whether it draws anything at random.
        curve: whether to try all knobs even when the first ones are the best.
        tasks: how many of the bed's tasks are in it (None: all).
    """

    name: str
    family: str
    build: Callable[[Models, int], Packed]
    knobs: Sequence[float] = LAMBDAS
    seeds: bool = False
    curve: bool = False
    tasks: int | None = None


def _merged(models: Models, delta: Delta) -> Packed:
    return Packed(models.base_bytes, lambda _, knob: models.state(delta, knob))


def _total(models: Models) -> dict[str, F32]:
    every = list(models.deltas.values())
    return {name: np.sum([delta[name] for delta in every], axis=0) for name in models.names}


def pre_trained(models: Models, _: int) -> Packed:
    """The base for every task."""
    return Packed(models.base_bytes, lambda task, knob: models.base)


def fine_tuned(models: Models, _: int) -> Packed:
    """Every model whole."""
    nbytes = models.base_bytes * len(models.tasks)
    return Packed(nbytes, lambda task, knob: models.state(models.deltas[task], 1.0))


def weight_average(models: Models, _: int) -> Packed:
    """The mean of the fine-tuned models."""
    share = 1 / len(models.tasks)
    merged = _total(models)
    return Packed(models.base_bytes, lambda task, knob: models.state(merged, share))


def task_arithmetic(models: Models, _: int) -> Packed:
    """Θ_0 + λ Σ Δ (Ilharco et al. 2022)."""
    return _merged(models, _total(models))


def _threshold(delta: Delta, share: float) -> float:
    """The magnitude that the largest `share` of a delta's values reach."""
    flat = np.concatenate([np.abs(part).reshape(-1) for part in delta.values()])
    kept = max(1, int(share * flat.size))
    return float(np.partition(flat, flat.size - kept)[flat.size - kept])


def magnitude_masking(models: Models, _: int) -> Packed:
    """Σ Δ under a mask of each task's largest values; the knob is the share kept."""
    total = _total(models)

    def restore(task: str, share: float) -> StateDict:
        least = _threshold(models.deltas[task], share)
        delta = models.deltas[task]
        return models.state({n: total[n] * (np.abs(delta[n]) >= least) for n in total}, 1.0)

    return Packed(_masked_bytes(models), restore)


def tall_masks(models: Models, _: int) -> Packed:
    """Σ Δ under the mask |Δ_i| ≥ knob · |Σ Δ − Δ_i| (Wang et al. 2024)."""
    total = _total(models)

    def restore(task: str, knob: float) -> StateDict:
        delta = models.deltas[task]
        kept = {n: np.abs(delta[n]) >= knob * np.abs(total[n] - delta[n]) for n in total}
        return models.state({n: total[n] * kept[n] for n in total}, 1.0)

    return Packed(_masked_bytes(models), restore)


def _masked_bytes(models: Models) -> int:
    """The base, one shared delta in float32, and a bit per value and task."""
    return models.base_bytes + 4 * models.elements + len(models.tasks) * -(-models.elements // 8)


def emr(models: Models, _: int) -> Packed:
    """Elect one delta, mask and rescale it by task (Huang et al. 2024)."""
    total = _total(models)
    elected = {}
    for name in models.names:
        every = np.stack([delta[name] for delta in models.deltas.values()])
        sign = np.sign(total[name])
        elected[name] = sign * np.max(np.abs(every) * (np.sign(every) == sign), axis=0)

    def restore(task: str, knob: float) -> StateDict:
        delta = models.deltas[task]
        kept = {n: elected[n] * (delta[n] * elected[n] > 0) for n in elected}
        mine = sum(float(np.abs(part).sum()) for part in delta.values())
        scale = mine / sum(float(np.abs(part).sum()) for part in kept.values())
        return models.state(kept, knob * scale)

    return Packed(_masked_bytes(models) + 4 * len(models.tasks), restore)


def bit_delta(models: Models, _: int) -> Packed:
    """The sign of every value and one scale per tensor and model (Liu et al. 2024)."""
    bits = {
        task: {name: np.sign(part) * np.abs(part).mean() for name, part in delta.items()}
        for task, delta in models.deltas.items()
    }
    each = sum(-(-int(np.prod(shape)) // 8) + 4 for shape in models.shapes.values())
    nbytes = models.base_bytes + each * len(models.tasks)
    return Packed(nbytes, lambda task, knob: models.state(bits[task], knob))


def _low_rank(matrix: F32, rank: int) -> F32:
    """The nearest matrix of a rank, its two factors rounded to half precision."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    _, vectors = np.linalg.eigh((tall.T @ tall).astype(np.float64))
    right = vectors[:, -rank:].astype(np.float32)
    left = tall @ right
    scale = max(float(np.abs(left).max()), 1e-30)
    left = (left / scale).astype(np.float16).astype(np.float32) * scale
    near = left @ right.astype(np.float16).astype(np.float32).T
    return near if tall is matrix else near.T


def truncated_svd(rank: int) -> Callable[[Models, int], Packed]:
    """Each delta's matrices at a rank, in half precision, the rest in float32 (as SMILE stores)."""

    def build(models: Models, _: int) -> Packed:
        flat = set(models.matrices())
        small = {
            task: {n: _low_rank(p, rank) if n in flat else p for n, p in delta.items()}
            for task, delta in models.deltas.items()
        }
        each = sum(
            min(2 * rank * sum(shape) + 4, 4 * int(np.prod(shape)))
            if name in flat
            else 4 * int(np.prod(shape))
            for name, shape in models.shapes.items()
        )
        nbytes = models.base_bytes + each * len(models.tasks)
        return Packed(nbytes, lambda task, knob: models.state(small[task], knob))

    return build


def superposed(transform: Transform, *, context: str = SIGNS) -> Callable[[Models, int], Packed]:
    """Superposed deltas in float32, in memory: what no bank holds is tried so."""

    def build(models: Models, seed: int) -> Packed:
        mixer = Mixer(models.shapes, transform, seed, context)
        total = mixer.superpose(list(enumerate(models.deltas.values())))

        def restore(task: str, knob: float) -> StateDict:
            return models.state(mixer.backward(total, models.tasks.index(task)), knob)

        return Packed(models.base_bytes + 4 * models.elements, restore)

    return build
