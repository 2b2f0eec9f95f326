"""Statistics that no pack writes, whatever the models: what sums of products can never be.

Digests tell damage, but who makes a bank makes its digests too. Bounds of Cauchy and Schwarz, and
that a sum is no longer than its parts together, hold of all that is measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from randes_cli.core.arrays import F64, Bools
from randes_cli.files.bank.keys import GRAM, NORMS, ROUNDED, cut_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.stats.grams import blocks
from randes_cli.stats.lengths import bank_lengths
from randes_cli.stats.stored import Statistics

#: Rounding of sums in float64.
_SLACK = 1 + 1e-9


def impossible(manifest: Manifest, statistics: Statistics) -> Iterator[str]:
    """The keys of statistics with values that no models have."""
    known = statistics.known
    kept, rounded = known.rounded
    if not _bounded(kept, known.norms, rounded):
        yield ROUNDED if known.measured else NORMS
    sure = _sure(statistics)
    if not all(_are_products(some, sure) for _, some in blocks(statistics.grams)):
        yield GRAM
    for group, found in known.cut.items():
        if not (_bounded(found[1], found[0], found[2]) and _adds_up(manifest, statistics, group)):
            yield cut_key(group)


def _bounded(product: F64, one: F64, two: F64) -> bool:
    """Whether ⟨a, b⟩² ≤ ‖a‖² ‖b‖² everywhere; taken by their roots, which do not overflow."""
    if min(one.min(initial=0.0), two.min(initial=0.0)) < 0:
        return False
    return bool(np.all(np.abs(product) <= np.sqrt(one) * np.sqrt(two) * _SLACK))


def _sure(statistics: Statistics) -> Bools:
    """The pairs of tasks whose products were measured, T × T."""
    place = {index: at for at, index in enumerate(statistics.indices)}
    made = np.ones((len(place), len(place)), np.bool_)
    for pair in statistics.estimated:
        one, two = (place.get(index) for index in pair)
        if one is not None and two is not None:
            made[one, two] = made[two, one] = False
    return made


def _are_products(grams: F64, sure: Bools) -> bool:
    """Whether these are matrices of products of vectors, as far as pairs tell."""
    lengths = np.diagonal(grams, axis1=-2, axis2=-1)
    if lengths.min(initial=0.0) < 0 or not np.array_equal(grams, grams.swapaxes(-2, -1)):
        return False
    roots = np.sqrt(lengths)
    most = roots[..., :, None] * roots[..., None, :] * _SLACK
    return bool(np.all((np.abs(grams) <= most) | ~sure))


def _adds_up(manifest: Manifest, statistics: Statistics, group: int) -> bool:
    """Whether a sealed group's sums were no longer than their deltas together."""
    known = statistics.known
    if group not in manifest.sealed or (known.forgotten is None and manifest.forgotten):
        return True
    lengths = bank_lengths(manifest, known)
    members = lengths.members(group)
    roots = np.sqrt(lengths.placed(lengths.rounded, members)).sum(axis=1)
    for place, (_, where) in enumerate(manifest.forgotten):
        if where == group and known.forgotten is not None:
            roots = roots + np.sqrt(known.forgotten[place])
    return bool(np.all(np.sqrt(known.cut[group][0]) <= roots * _SLACK))
