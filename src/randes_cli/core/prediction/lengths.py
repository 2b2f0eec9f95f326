"""The deltas of a bank in numbers: how long each is on every tensor, and in which sum it lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.core.prediction.cut import Cut

T = TypeVar("T")

#: What is left of an energy when it counts as none.
_CANCELLED = 1e-12


@dataclass(frozen=True)
class Lengths:
    """Every delta of a bank on every tensor: arrays of tensors × T.

    Attributes:
        whole: ‖Δ‖² before rounding.
        kept: ⟨Δ, q⟩, q being the rounded delta.
        rounded: ‖q‖².
        changed: where a task's bytes differ from the base's.
        groups: each task's group; tasks meet within their group only.
        order: the tensor that a task has at each position; None where nothing is shuffled.
        cuts: what becomes of the sums of groups that are sealed or have a share.
        tails: `core.tails.tails` of every delta, 2 × tensors × T; None where nobody knows.
        others: ‖q‖² by tensor of deltas that no task answers for any more, by group.
    """

    whole: F64
    kept: F64
    rounded: F64
    changed: Bools
    groups: Sequence[int]
    order: I64 | None = None
    cuts: Mapping[int, Cut] = field(default_factory=dict)
    tails: F64 | None = None
    others: Mapping[int, F64] = field(default_factory=dict)
    _known: dict[int, tuple[F64, F64]] = field(default_factory=dict, init=False, compare=False)
    _found: dict[object, Any] = field(default_factory=dict, init=False, compare=False)
    _placed: dict[tuple[str, bytes], F64] = field(default_factory=dict, init=False, compare=False)

    def once(self, find: Callable[[Lengths], T]) -> T:
        """What a function finds, asked for the first time."""
        if find not in self._found:
            self._found[find] = find(self)
        found: T = self._found[find]
        return found

    def members(self, group: int) -> I64:
        return np.flatnonzero(np.asarray(self.groups, np.int64) == group)

    def placed(self, values: F64, tasks: I64) -> F64:
        """What is known of tensors, at the positions where these tasks have them."""
        chosen = values[:, tasks]
        return chosen if self.order is None else np.take_along_axis(chosen, self.order[:, tasks], 0)

    def of(self, what: str, tasks: I64) -> F64:
        """`placed` of the array of this name, made once. Never write to what is returned."""
        key = what, tasks.tobytes()
        if key not in self._placed:
            self._placed[key] = self.placed(getattr(self, what), tasks)
        return self._placed[key]

    def named(self, values: F64, tasks: I64) -> F64:
        """The reverse: what is known of positions, of the tensors that these tasks have there."""
        if self.order is None:
            return values
        made = np.empty_like(values)
        places = np.broadcast_to(self.order[:, tasks], values.shape)
        np.put_along_axis(made, places, values, -2)
        return made

    def sum_energy(self, group: int, members: I64) -> F64:
        """‖S‖² of a dense S at each position, were all deltas orthogonal."""
        energy: F64 = self.of("rounded", members).sum(axis=1)
        return energy + self.others.get(group, 0.0)

    def read(self, group: int, members: I64, crossed: F64 | float = 0.0) -> tuple[F64, F64]:
        """⟨x, Q(S)⟩ / ⟨x, S⟩ of every delta x of a group, at its positions, and ‖Q(S)‖² there.

        `crossed` is what products of different deltas add to ‖S‖². Never write to what is returned.
        """
        if not isinstance(crossed, float):
            return self._read(group, members, crossed)
        if group not in self._known:
            self._known[group] = self._read(group, members, crossed)
        return self._known[group]

    def _read(self, group: int, members: I64, crossed: F64 | float) -> tuple[F64, F64]:
        whole, cut = _added(self.sum_energy(group, members), crossed), self.cuts.get(group)
        if cut is None:
            return np.ones((len(whole), len(members))), whole
        tails = None if self.tails is None else [self.placed(t, members) for t in self.tails]
        return cut.read(self.of("rounded", members), tails, whole)

    def tell(self, group: int, kept: F64, length: F64) -> None:
        """What `read` returns for a group where nothing is crossed, worked out before."""
        self._known[group] = kept, length

    @property
    def several(self) -> tuple[int, ...]:
        """How many shares `cuts` have side by side; empty where it is one."""
        return next((cut.share.shape[:-1] for cut in self.cuts.values()), ())

    def every(self, group: int) -> F64 | float:
        """The m of each tensor in a group that stores one element in m."""
        return self.cuts[group].share if group in self.cuts else 1.0


def _added(energy: F64, crossed: F64 | float) -> F64:
    """Their sum, nothing where they cancel but for the rounding of these very numbers."""
    made = energy + crossed
    made[made < _CANCELLED * energy] = 0.0
    return made
