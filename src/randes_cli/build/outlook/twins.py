"""Tasks that are one checkpoint with another, or with the base: what pack, add and dry runs say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from randes_cli.build.build import Built
from randes_cli.build.draft import Draft
from randes_cli.build.jobs.exact import differs, exact_tensors, first_digest
from randes_cli.build.records import NO_FINGERPRINT
from randes_cli.files.bank.keys import own_key
from randes_cli.files.bank.manifest import Manifest
from randes_cli.files.digests import DIGEST_BYTES
from randes_cli.specs import BaseStorage, TensorInfo
from randes_cli.stats.grams import GramTable, blocks

#: Names in a line about several tasks.
_MOST_NAMES = 3


def twins(built: Built, draft: Draft, *, dry_run: bool) -> list[str]:
    """Lines on the tasks that come which are one with another of the bank, or with the base.

    A build knows by fingerprints. A dry run reads no checkpoint whole: it says what looks so, by
    the samples of every tensor, and the beginnings of what is kept exactly.
    """
    manifest, ours = built.manifest, {one.index for one in draft.coming}
    if not dry_run:
        return _told(manifest, _by_fingerprint(manifest), ours, "{}, to the byte")
    beside = _beside_deltas(manifest, draft)
    as_base = _Beside(None, {}, {}, frozenset(), manifest.base.ties, {})
    found = _by_sample(built, beside, as_base)
    return _told(manifest, found, ours, "{}, by a sample of each tensor")


class _Beside(NamedTuple):
    """What a task has besides deltas: dtypes, shapes, names, and what it keeps exactly."""

    dtype: str | None
    dtypes: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    missing: frozenset[str]
    ties: Mapping[str, str]
    kept: Mapping[str, tuple[TensorInfo, bytes]]


def _beside_deltas(manifest: Manifest, draft: Draft) -> dict[int, _Beside]:
    """By index; of exact tensors, and rows past the base's, the digests of their first chunks."""
    kept: dict[int, dict[str, tuple[TensorInfo, bytes]]] = {}
    old = () if draft.old is None else draft.old.manifest.tasks
    for task in old:
        kept[task.index] = {
            name: (draft.old.info(key)._replace(name=name), draft.old.digests(key)[:DIGEST_BYTES])
            for name in (*task.own, *task.shapes)
            if draft.old is not None and (key := own_key(task.name, name)) in draft.old
        }
    for one in draft.coming:
        found = (exact for exact in exact_tensors(draft.base, [one]) if differs(exact))
        kept[one.index] = {
            exact.name: (exact.kept._replace(name=exact.name), first_digest(exact))
            for exact in found
        }
    return {
        task.index: _Beside(
            task.dtype, task.dtypes, task.shapes, task.missing, task.ties, kept[task.index]
        )
        for task in manifest.tasks
    }


def _by_fingerprint(manifest: Manifest) -> list[tuple[bool, list[int]]]:
    """Indices of tasks of one content, and whether it is the base's."""
    alike: dict[str, list[int]] = {}
    for task in manifest.tasks:
        if task.fingerprint not in ("", NO_FINGERPRINT):
            alike.setdefault(task.fingerprint, []).append(task.index)
    return [(print_ == manifest.base.fingerprint, found) for print_, found in alike.items()]


def _by_sample(
    built: Built, beside: Mapping[int, _Beside], as_base: _Beside
) -> list[tuple[bool, list[int]]]:
    """The same by the deltas' Gram matrices: one sample, if all their products are equal.

    They are exact sums of integers (`samples.sample`), so equal samples give equal numbers; the
    other way round three equal numbers are two equal deltas.
    """
    statistics = built.statistics
    indices, grams = statistics.indices, statistics.grams
    changed = statistics.known.norms.sum(axis=0) > 0
    same = [i for n, i in enumerate(indices) if not changed[n] and beside[i] == as_base]
    made = [(True, same)]
    left = [n for n, index in enumerate(indices) if index not in same]
    while left:
        first = left[0]
        like = [n for n in left if beside[indices[n]] == beside[indices[first]]]
        alike = [n for n in like if n == first or _equal(grams, first, n)]
        made.append((False, [indices[n] for n in alike]))
        left = [n for n in left if n not in alike]
    return made


def _equal(grams: GramTable, one: int, two: int) -> bool:
    return all(
        np.array_equal(some[:, 0, one, one], some[:, 0, two, two])
        and np.array_equal(some[:, 0, one, one], some[:, 0, one, two])
        for _, some in blocks(grams)
    )


def _told(
    manifest: Manifest, found: Iterable[tuple[bool, list[int]]], ours: set[int], how: str
) -> list[str]:
    names = {task.index: task.name for task in manifest.tasks}
    alike = "the same factors" if manifest.base.storage is BaseStorage.zero else "one checkpoint"
    made = []
    for is_base, indices in found:
        told = [index for index in indices if index in ours] if is_base else indices
        if not ours & set(told) or len(told) < 2 - is_base:
            continue
        who = ", ".join(names[index] for index in told[:_MOST_NAMES])
        more = f" and {len(told) - _MOST_NAMES} more" if len(told) > _MOST_NAMES else ""
        what = how.format("the base itself" if is_base else alike)
        made.append(f"{who}{more}: {what}")
    return made
