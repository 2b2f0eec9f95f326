"""Tasks that are one checkpoint with another, or with the base: what pack, add and dry runs say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from randes_cli.build.build import Built
from randes_cli.build.participants import Participant
from randes_cli.build.records import NO_FINGERPRINT
from randes_cli.core.arrays import F64
from randes_cli.files.manifest import Manifest

#: Names in a line about several tasks.
_MOST_NAMES = 3


def twins(built: Built, coming: Sequence[Participant], *, dry_run: bool) -> list[str]:
    """Lines on the tasks that come which are one with another of the bank, or with the base.

    A build knows by fingerprints. A dry run reads no checkpoint whole: it says what looks so, by
    the samples of every tensor; its tasks that may differ in what is kept exactly it leaves out.
    """
    manifest, ours = built.manifest, {one.index for one in coming}
    if not dry_run:
        return _told(manifest, _by_fingerprint(manifest), ours, "{}, to the byte")
    plain = {one.index for one in coming if not one.fit.exact}
    plain |= {task.index for task in manifest.tasks if task.index not in ours and not task.own}
    found = _by_sample(built, plain)
    return _told(manifest, found, ours, "{}, by a sample of each tensor")


def _by_fingerprint(manifest: Manifest) -> list[tuple[bool, list[int]]]:
    """Indices of tasks of one content, and whether it is the base's."""
    alike: dict[str, list[int]] = {}
    for task in manifest.tasks:
        if task.fingerprint not in ("", NO_FINGERPRINT):
            alike.setdefault(task.fingerprint, []).append(task.index)
    return [(print_ == manifest.base.fingerprint, found) for print_, found in alike.items()]


def _by_sample(built: Built, plain: set[int]) -> list[tuple[bool, list[int]]]:
    """The same by the deltas' Gram matrices: one sample, if all their products are equal.

    They are exact sums of integers (`build.sample.gram`), so equal samples give equal numbers; the
    other way round three equal numbers are two equal deltas.
    """
    statistics = built.statistics
    places = [n for n, index in enumerate(statistics.indices) if index in plain]
    grams = statistics.grams[:, 0]
    changed = statistics.known.norms.sum(axis=0) > 0
    same = [statistics.indices[n] for n in places if not changed[n]]
    made = [(True, same)]
    left = [n for n in places if changed[n]]
    while left:
        first = left[0]
        alike = [n for n in left if n == first or _equal(grams, first, n)]
        made.append((False, [statistics.indices[n] for n in alike]))
        left = [n for n in left if n not in alike]
    return made


def _equal(grams: F64, one: int, two: int) -> bool:
    own = grams[:, one, one]
    twin, met = grams[:, two, two], grams[:, one, two]
    return bool(own.any()) and np.array_equal(own, twin) and np.array_equal(own, met)


def _told(
    manifest: Manifest, found: Iterable[tuple[bool, list[int]]], ours: set[int], how: str
) -> list[str]:
    names = {task.index: task.name for task in manifest.tasks}
    made = []
    for is_base, indices in found:
        told = [index for index in indices if index in ours] if is_base else indices
        if not ours & set(told) or len(told) < 2 - is_base:
            continue
        who = ", ".join(names[index] for index in told[:_MOST_NAMES])
        more = f" and {len(told) - _MOST_NAMES} more" if len(told) > _MOST_NAMES else ""
        what = how.format("the base itself" if is_base else "one checkpoint")
        made.append(f"{who}{more}: {what}")
    return made
