"""What a task keeps of its gain over the base, predicted from the noise that it comes back with.

Noise is measured in energies of the task's own delta. Interference averages out over the inputs of
a layer, and so does the rounding of a sum of many deltas; the rounding of a delta that is alone, or
nearly, does not, for it follows the weights. So the two weigh differently, and a cosine, which adds
them up, ranks choices wrongly. The share of the gain that is kept is

    a (2 − a) exp(−(κ N^q + ω F)),    N = others + d · dropped + rounding,

a being how much of the delta comes back along itself (1 but where it falls through the grid), F as
in `Noise.following`,
with κ and ω of a family of models, q and d the same for all: fitted to measured banks by
`benchmarks/quality/fit.py`, which writes the numbers below. A new bank belongs to none of the
families, so it is told the middle of their predictions and the least and the largest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F64, I64
from randes_cli.core.prediction import Lengths


class Family(NamedTuple):
    """How much of the gain noise costs in one measured family."""

    noise: float
    following: float


#: q and d.
POWER, DROPPED = 1.2, 0.54

#: κ and ω by family of models.
FAMILIES: Mapping[str, Family] = {
    "decoder": Family(0.02, 0.074),
    "decoder, 6.4M": Family(0.027, 0.14),
    "decoder, 85M": Family(0.0018, 0.035),
    "decoder-far": Family(0.038, 0.12),
    "digits": Family(0.00045, 0.07),
    "digits-conv": Family(0.00066, 0.089),
    "digits-large": Family(0.00033, 0.056),
    "encoder": Family(0.0021, 0.1),
    "encoder, prototype": Family(0.00017, 0.077),
    "encoder-lora": Family(0.012, 0.08),
    "encoder-near": Family(0.00057, 0.061),
}


class Kept(NamedTuple):
    """A share of the gain over the base, 0 to 1: the middle of the families, and their range."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Noise:
    """What every task comes back with, in energies of its own delta: vectors of T values.

    Attributes:
        others: deltas of other tasks.
        dropped: what a share of the elements leaves out of the task's own.
        rounding: of the sum, all of it.
        following: how far the rounding follows the task's own weights: the square of x p², x
            being the rounding of a sum in its energies and p the task's part in the sum's. (Of
            the powers that were tried these fit best.)
        along: how much of the delta comes back along itself, 0 to 1.
    """

    others: F64
    dropped: F64
    rounding: F64
    following: F64
    along: F64

    @property
    def whole(self) -> F64:
        """N: the noise that averages out."""
        return self.others + DROPPED * self.dropped + self.rounding

    def kept(self) -> F64:
        """The share kept by each task (T) in each family: families × T."""
        return np.array([family_kept(family, self) for family in FAMILIES.values()])


def family_kept(family: Family, noise: Noise) -> F64:
    """The share of the gain that tasks keep in one family."""
    lost = family.noise * np.maximum(noise.whole, 0.0) ** POWER
    kept: F64 = np.exp(-(lost + family.following * noise.following))
    return kept * noise.along * (2.0 - noise.along)


def noise_of(lengths: Lengths) -> Noise:
    """The noise of every task of a bank, its deltas taken to be orthogonal."""
    parts = np.zeros((4, *lengths.whole.shape))
    for group in sorted(set(lengths.groups)):
        members = lengths.members(group)
        for part, found in zip(parts, _group_noise(lengths, group, members), strict=True):
            part[:, members] = lengths.named(found, members)
    changed = lengths.changed
    own = np.where(changed, lengths.whole, 0.0).sum(axis=0)
    parts[:, ~changed] = 0.0
    sums = parts.sum(axis=1)
    along = np.where(changed, _along(lengths), 0.0).sum(axis=0)
    others, dropped, rounding, following = np.divide(
        sums, own, out=np.zeros_like(sums), where=own > 0
    )
    along = np.divide(along, own, out=np.ones_like(own), where=own > 0)
    return Noise(others, dropped, rounding, following, np.clip(along, 0.0, 1.0))


def _along(lengths: Lengths) -> F64:
    """⟨Δ, Q⟩ of every tensor and task, of a sum of orthogonal deltas."""
    made = np.empty_like(lengths.whole)
    for group in sorted(set(lengths.groups)):
        members = lengths.members(group)
        found = lengths.placed(lengths.kept, members) * lengths.read(group, members)[0]
        made[:, members] = lengths.named(found, members)
    return made


def _group_noise(lengths: Lengths, group: int, members: I64) -> tuple[F64, F64, F64, F64]:
    """Others, dropped, rounding and following at each position of a group's tasks."""
    own = lengths.placed(lengths.rounded, members)
    energy = lengths.sum_energy(group, members)
    every = np.broadcast_to(lengths.every(group), energy.shape)
    shares, read = lengths.read(group, members)
    part = np.divide(own, energy[:, None], out=np.zeros_like(own), where=energy[:, None] > 0)
    total = own.sum(axis=1)
    kept = np.divide((own * shares).sum(axis=1), total, out=np.ones_like(total), where=total > 0)
    matched = 2.0 * kept - 1.0
    cut = np.maximum(read - matched * every * energy, 0.0)
    grid = own - 2 * lengths.placed(lengths.kept, members) + lengths.placed(lengths.whole, members)
    every, energy, cut = every[:, None], energy[:, None], cut[:, None]
    rounding = cut + every * np.maximum(grid, 0.0)
    whole = every * energy
    relative = np.divide(cut, whole, out=np.zeros_like(cut), where=whole > 0)
    follows = own * (relative * part**2) ** 2
    return every * (energy - own), (every - 1.0) * own, rounding, follows


def _median(values: F64) -> F64:
    """Along the first axis; NumPy's own loads its masked arrays."""
    ordered, half = np.sort(values, axis=0), len(values) // 2
    middle: F64 = (ordered[half] + ordered[-half - 1]) / 2
    return middle


def kept_of(noise: Noise) -> list[Kept]:
    """What every task is told."""
    found = noise.kept()
    middle = _median(found)
    return [
        Kept(float(low), float(mid), float(high))
        for low, mid, high in zip(found.min(axis=0), middle, found.max(axis=0), strict=True)
    ]


def mean_kept(noise: Noise) -> Kept:
    """The mean over the tasks of what each family keeps; all of it where there is no task."""
    found = noise.kept()
    if not found.shape[1]:
        return Kept(1.0, 1.0, 1.0)
    means = found.mean(axis=1)
    return Kept(float(means.min()), float(_median(means)), float(means.max()))


#: λ that are compared.
_LAMBDAS = np.arange(0.3, 1.001, 0.05)


def wanted(noise: Noise) -> tuple[float, float]:
    """The least and the largest λ, over the families, at which the tasks keep most on average.

    λ scales noise energies by λ² and the delta by λ, of whose gain λ (2 − λ) is left.
    """
    energy = np.maximum(noise.whole, 0.0)[:, None] * _LAMBDAS**2
    left = _LAMBDAS * (2.0 - _LAMBDAS)
    found = []
    for family in FAMILIES.values():
        kept = np.exp(-family.noise * energy**POWER) * left
        means = kept.mean(axis=0) if len(kept) else left
        found.append(float(_LAMBDAS[int(means.argmax())]))
    return round(min(found), 2), round(max(found), 2)
