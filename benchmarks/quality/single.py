"""Each delta by itself at a given number of bits, without data: what superposition competes with.

Both methods drop most of a delta at random and enlarge the rest; which values stay follows from a
seed (for UltraDelta, within each value of the quantised delta), so only values are counted, as
their papers do, and a mean and a range for each tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np
from methods import F32, Models, Packed

#: Bits of a value that UltraDelta keeps, and how far its shares of tensors lie apart.
ULTRA_BITS, ULTRA_STEP = 4, 0.02
_HEADER = 8  # bytes for each tensor


def _chance(seed: int, task: str, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(f"{task}/{name}".encode())])


def _bytes(models: Models, bits: float) -> int:
    each = int(models.elements * bits / 8) + _HEADER * len(models.names)
    return models.base_bytes + each * len(models.tasks)


def drop_and_rescale(bits: float) -> Callable[[Models, int], Packed]:
    """Random values of a delta at a sign each, by `bits` an element for all tasks together."""

    def build(models: Models, seed: int) -> Packed:
        share = min(1.0, bits / len(models.tasks))
        kept = {
            task: {
                name: _dropped(part, share, _chance(seed, task, name))
                for name, part in delta.items()
            }
            for task, delta in models.deltas.items()
        }
        nbytes = _bytes(models, share)
        return Packed(nbytes, lambda task, knob: models.state(kept[task], knob))

    return build


def _dropped(delta: F32, share: float, chance: np.random.Generator) -> F32:
    there = chance.random(delta.shape) < share
    scale = np.abs(delta).mean() / share
    return (np.sign(delta) * there * scale).astype(np.float32)


def ultra_delta(bits: float) -> Callable[[Models, int], Packed]:
    """UltraDelta (Wang et al. 2025): uniform levels, shares by variance, pruning by level.

    The factor that its paper takes from trace norms is the knob, so that the best one counts.
    """

    def build(models: Models, seed: int) -> Packed:
        share = min(1.0, bits / ULTRA_BITS / len(models.tasks))
        kept = {}
        for task, delta in models.deltas.items():
            shares = _shares(delta, share)
            kept[task] = {
                name: _pruned(_levels(part), shares[name], _chance(seed, task, name)) / share
                for name, part in delta.items()
            }
        nbytes = _bytes(models, share * ULTRA_BITS)
        return Packed(nbytes, lambda task, knob: models.state(kept[task], knob))

    return build


def _levels(delta: F32) -> F32:
    low, high = float(delta.min()), float(delta.max())
    if high <= low:
        return delta
    most = 2**ULTRA_BITS - 1
    steps = np.round((delta - low) / (high - low) * most)
    return (steps / most * (high - low) + low).astype(np.float32)


def _shares(delta: dict[str, F32], share: float) -> dict[str, float]:
    """What each tensor keeps: the third of least spread less, the third of most spread more."""
    names = sorted(delta, key=lambda name: float(delta[name].std()))
    ends = np.cumsum([delta[name].size for name in names])
    third = ends[-1] / 3
    step = min(ULTRA_STEP, share / 2)
    made = {
        name: share - step if end <= third else share
        for name, end in zip(names, ends, strict=True)
        if end <= 2 * third
    }
    rest = [name for name in names if name not in made]
    left = share * ends[-1] - sum(made[name] * delta[name].size for name in made)
    more = left / sum(delta[name].size for name in rest)
    return {**made, **dict.fromkeys(rest, min(1.0, more))}


def _pruned(levels: F32, share: float, chance: np.random.Generator) -> F32:
    """Of each level as many values as the share asks for, so that their histogram stays."""
    flat = levels.reshape(-1)
    order = chance.permutation(flat.size)
    order = order[np.argsort(flat[order], kind="stable")]
    _, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    place = np.arange(flat.size) - np.repeat(starts, counts)
    there = place < np.repeat(np.round(share * counts), counts)
    made = np.zeros_like(flat)
    made[order[there]] = flat[order[there]]
    return made.reshape(levels.shape)
