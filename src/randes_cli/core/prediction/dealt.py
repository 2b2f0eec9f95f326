"""What a cut to few bits makes of the sums of many groups, all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import F64, I64
from randes_cli.core.prediction.mixture import Mixture, Shapes


class DealtCut(NamedTuple):
    """Of deltas that are dealt to groups.

    Attributes:
        kept: ⟨x, Q(S)⟩ / ⟨x, S⟩ of every delta, tensors × T.
        length: ‖Q(S)‖² / ‖S‖² of every sum, tensors × groups that have any.
    """

    kept: F64
    length: F64


def dealt_cut(energy: F64, shapes: Shapes, side: F64, groups: Sequence[int], bits: int) -> DealtCut:
    """As `Mixture.supposed` and `length` have it group by group; `energy` is tensors × T.

    `side` is 0 for tensors that are not cut.
    """
    rows, table = np.flatnonzero(side), _table(groups)
    count, most = table.shape
    deltas = Shapes(*(_dealt(one[rows], table, 1.0) for one in shapes))
    deltas = deltas._replace(often=_dealt(shapes.often[rows], table, 0.0))
    parts = _dealt(energy[rows], table, 0.0)
    found = Mixture(parts, deltas, np.repeat(side[rows], count), bits)
    kept, length = np.ones((len(side), len(groups) + 1)), np.ones((len(side), count))
    some = np.ones((len(rows), len(groups) + 1))
    some[:, table] = found.supposed().reshape(-1, count, most)
    kept[rows], length[rows] = some, found.length().reshape(-1, count)
    return DealtCut(kept[:, :-1], length)


def _table(groups: Sequence[int]) -> I64:
    """The tasks of each group that has any, a row each, filled up with one more than there are."""
    members = [np.flatnonzero(np.asarray(groups) == one) for one in sorted(set(groups))]
    made = np.full((len(members), max(map(len, members), default=1)), len(groups), np.int64)
    for row, some in zip(made, members, strict=True):
        row[: len(some)] = some
    return made


def _dealt(values: F64, table: I64, rest: float) -> F64:
    """Tensors × T as sums × deltas, a sum for each tensor and group; `rest` fills them up."""
    more = np.concatenate([values, np.full((len(values), 1), rest)], axis=1)
    made: F64 = more[:, table].reshape(-1, table.shape[1])
    return made
