"""What a task keeps of its gain over the base, predicted from the noise that it comes back with.

Noise is measured in energies of the task's own delta. Interference averages out over the inputs of
a layer, and so does the rounding of a sum of many deltas; the rounding of a delta that is alone, or
nearly, does not, for it follows the weights. So the two weigh differently, and a cosine, which adds
them up, ranks choices wrongly. The share of the gain that is kept is

    a (2 − a) (1 − (1 + w) (1 − exp(−L / (1 + w)))),
    L = κ (λ² N)^q + ω F,    N = others + d · dropped + rounding,

F as in `Noise.following`, a being λ times how much of the delta comes back along itself (1 but
where it falls through the grid), with κ and ω of a family of models, the rest the same for all:
fitted to measured banks by `benchmarks/quality/fit.py`, which writes the numbers below. Noise takes
more than the gain from a model, until it knows nothing: what is left of the gain tends to −w, and
where it is below 0 (a model worse than its base) none is kept. A new bank belongs to none of the
families, so it is told the mean of their predictions, and the least and the largest. (By the mean
choices are ranked better than by the middle, and it is not too good on average: docs/results.md.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F64, I64, parts
from randes_cli.core.prediction.cosines import MOST_NOISE, is_lost, near
from randes_cli.core.prediction.lengths import Lengths

#: Numbers of deltas that are looked at together.
_ROOM = 2**17


class Family(NamedTuple):
    """How much of the gain noise costs in one measured family."""

    noise: float
    following: float


#: q, d and w.
POWER, DROPPED, WORSE = 1.19, 0.5, 2.35

#: κ and ω by family of models.
FAMILIES: Mapping[str, Family] = {
    "decoder": Family(0.021, 0.088),
    "decoder, 6.4M": Family(0.028, 0.15),
    "decoder, 85M": Family(0.0021, 0.035),
    "decoder-far": Family(0.04, 0.11),
    "decoder-medium": Family(0.015, 0.11),
    "digits": Family(0.00054, 0.071),
    "digits-conv": Family(0.00087, 0.096),
    "digits-large": Family(0.00046, 0.056),
    "encoder": Family(0.0026, 0.13),
    "encoder, prototype": Family(0.00021, 0.086),
    "encoder-lora": Family(0.016, 0.093),
    "encoder-near": Family(0.00051, 0.065),
}


class Kept(NamedTuple):
    """A share of the gain over the base, 0 to 1: the mean of the families, and their range."""

    low: float
    mean: float
    high: float


#: Of a task whose delta is lost.
NOTHING = Kept(0.0, 0.0, 0.0)


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
        tasks: those of its group that changed something; None where no delta counts as lost.
        cosines: of what comes back with the delta; None where they follow from these energies.
    """

    others: F64
    dropped: F64
    rounding: F64
    following: F64
    along: F64
    tasks: F64 | None = None
    cosines: F64 | None = None

    @property
    def whole(self) -> F64:
        """N: the noise that averages out."""
        return self.others + DROPPED * self.dropped + self.rounding

    @property
    def cosine(self) -> F64:
        """Of what comes back with the delta."""
        if self.cosines is not None:
            return self.cosines
        energy = self.others + self.dropped + self.rounding + 2.0 * self.along - 1.0
        scale = np.sqrt(np.maximum(energy, 0.0))
        return np.divide(self.along, scale, out=np.ones_like(energy), where=energy > 0)

    @property
    def told(self) -> F64:
        """λ of tasks that nobody tuned (`default_coefficient`, not rounded)."""
        told: F64 = np.minimum(1.0, np.sqrt(MOST_NOISE) * np.maximum(self.cosine, 0.0))
        return told

    def kept(self) -> F64:
        """The share kept by each task (T) in each family at λ as told: families × T.

        Nothing of a delta that is lost: no bank was measured so far from what its tasks share.
        """
        noise, following = np.array([*FAMILIES.values()]).T[..., None]
        found = _kept(noise, following, self, self.told)
        if self.tasks is not None:
            found[:, is_lost(self.cosine, self.tasks)] = 0.0
        return found


def family_kept(family: Family, noise: Noise, coefficients: F64) -> F64:
    """The share of the gain that tasks keep in one family at these λ."""
    return _kept(*family, noise, coefficients)


def _kept(weight: F64 | float, following: F64 | float, noise: Noise, coefficients: F64) -> F64:
    """The same with κ and ω, of one family or of many."""
    lost = weight * (np.maximum(noise.whole, 0.0) * coefficients**2) ** POWER
    most = 1.0 + WORSE
    left = 1.0 + most * np.expm1(-(lost + following * noise.following) / most)
    along = coefficients * noise.along
    kept: F64 = np.maximum(left, 0.0) * along * (2.0 - along)
    return kept


def noise_of(lengths: Lengths) -> Noise:
    """The noise of every task of a bank, its deltas taken to be orthogonal."""
    return lengths.once(_noise)


def noise_of_each(lengths: Lengths) -> list[Noise]:
    """The same of every share that is looked at."""
    whole = noise_of(lengths)
    rows = zip(*(getattr(whole, name) for name in _BY_SHARE), strict=True)
    return [replace(whole, **dict(zip(_BY_SHARE, row, strict=True))) for row in rows]


#: Fields of `Noise` that differ from share to share.
_BY_SHARE = ("others", "dropped", "rounding", "following", "along", "cosines")


def _noise(lengths: Lengths) -> Noise:
    tensors, tasks = lengths.whole.shape
    most = _ROOM // tasks if lengths.order is None and tasks > 1 else tensors
    groups = [(g, lengths.members(g)) for g in sorted(set(lengths.groups))]
    shape = 6, *lengths.several
    sums = np.zeros((*shape, 1, tasks))
    for rows in parts(tensors, most):
        made = np.zeros((*shape, *lengths.changed[rows].shape))
        for group, members in groups:
            found = _group_noise(lengths, group, members, rows)
            for part, values in zip(made, found, strict=True):
                part[..., members] = lengths.named(values, members)
        made[..., ~lengths.changed[rows]] = 0.0
        # Added one after the other, however many are looked at together.
        made = np.concatenate([sums, made], axis=-2) if rows.start else made
        sums = made.sum(axis=-2, keepdims=True)
    changed = lengths.changed
    own = np.where(changed, lengths.whole, 0.0).sum(axis=0)
    sums, there = sums[..., 0, :], np.asarray(changed.any(axis=0))
    others, dropped, rounding, following, along, length = np.divide(
        sums, own, out=np.zeros_like(sums), where=own > 0
    )
    along[..., ~there] = 1.0  # all of nothing
    nothing = np.broadcast_to(1.0 - there, along.shape).copy()
    cosines = np.divide(along, np.sqrt(length), out=nothing, where=length > 0)
    tasks = near(there, lengths.groups)
    return Noise(
        others,
        dropped,
        rounding,
        following,
        np.clip(along, 0.0, 1.0),
        tasks,
        np.clip(cosines, -1, 1),
    )


def _group_noise(lengths: Lengths, group: int, members: I64, rows: slice) -> tuple[F64, ...]:
    """Of a group's tasks at some positions: others, dropped, rounding and following, and what comes
    back along each delta and in all."""
    whole, own, kept = (lengths.of(one, members)[rows] for one in ("whole", "rounded", "kept"))
    shares, read = lengths.read(group, members)
    shares, read = shares[rows], read[..., rows]
    total, beside = own.sum(axis=1), lengths.others.get(group)
    energy = total if beside is None else total + beside[rows]
    share = lengths.every(group)
    every = np.full(len(own), share) if isinstance(share, float) else share[..., rows]
    part = np.divide(own, energy[:, None], out=np.zeros_like(own), where=energy[:, None] > 0)
    held = np.divide((own * shares).sum(axis=1), total, out=np.ones_like(total), where=total > 0)
    cut = np.maximum(read - (2.0 * held - 1.0) * every * energy, 0.0)
    grid = own - 2 * kept + whole
    every, energy, cut = every[..., None], energy[:, None], cut[..., None]
    rounding = cut + every * np.maximum(grid, 0.0)
    stored = every * energy
    relative = np.divide(cut, stored, out=np.zeros_like(cut), where=stored > 0)
    follows = own * (relative * part**2) ** 2
    back = np.repeat(read[..., None], own.shape[1], axis=-1)
    return every * (energy - own), (every - 1.0) * own, rounding, follows, kept * shares, back


def kept_of(noise: Noise) -> list[Kept]:
    """What every task is told."""
    found = noise.kept()
    columns = found.min(axis=0), found.mean(axis=0), found.max(axis=0)
    return [Kept(*map(float, one)) for one in zip(*columns, strict=True)]


def mean_kept(noise: Noise) -> Kept:
    """The mean over the tasks of what each family keeps; all of it where there is no task."""
    found = noise.kept()
    if not found.shape[1]:
        return Kept(1.0, 1.0, 1.0)
    means = found.mean(axis=1)
    return Kept(float(means.min()), float(means.mean()), float(means.max()))


#: λ that are compared.
_LAMBDAS = np.arange(0.3, 1.001, 0.05)


def wanted(noise: Noise) -> tuple[float, float]:
    """The least and the largest λ, over the families, at which the tasks keep most on average.

    Of λ at which as much is kept, or nothing, the largest counts.
    """
    every = np.repeat(_LAMBDAS[:, None], len(noise.others), axis=1)
    found = []
    for family in FAMILIES.values():
        means = np.array([family_kept(family, noise, value).sum() for value in every])
        found.append(float(_LAMBDAS[len(means) - 1 - int(means[::-1].argmax())]))
    return round(min(found), 2), round(max(found), 2)
