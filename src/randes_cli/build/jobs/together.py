"""Small tensors that one call does: which, and which of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.jobs import Part
from randes_cli.core.arrays import I64
from randes_cli.core.columns import Some
from randes_cli.plan import Unit

#: Elements of a layer that is small, and layers and elements of one call.
_SMALL, _UNITS, _ELEMENTS = 2**14, 2**10, 2**20
#: Layers of a unit that are not computed together: each reads the base's that tasks move there.
_LAYERS = 2**7

#: Which layer lies at each position, by a task's seed and index.
Orders = dict[tuple[int, int], I64]


@dataclass(frozen=True, slots=True)
class Many:
    """Small tensors with the same superpositions and participants: a part of each for each group.

    Each is a unit, or they are positions of one unit; `orders` are what is known of that.
    """

    units: list[Unit]
    positions: list[int]
    parts: list[tuple[Part, ...]]
    orders: Orders

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors whose places they are."""
        if self.units[0].layers == 1:
            return tuple([unit.names[0] for unit in self.units])
        return Some.of(self.units[0].names, np.array(self.positions, np.int64))

    def moved(self, one: Participant) -> tuple[str, ...]:
        """The tensors that a participant has there."""
        unit = self.units[0]
        if unit.layers == 1:
            return self.names
        task = one.seed, one.index
        if task not in self.orders:
            self.orders[task] = np.array(unit.order(*task), np.int64)
        return Some.of(unit.names, self.orders[task][self.positions])


def is_small(unit: Unit, parts: Sequence[Part], *, shuffled: bool = True) -> bool:
    """Whether a unit may be done with others, or (where `shuffled` ones may) some layers a time."""
    return (
        (unit.layers == 1 or (shuffled and unit.layers > _LAYERS))
        and 0 < unit.rows * unit.cols <= _SMALL
        and all(part.step is not None and part.share.every == 1 for part in parts)
    )


def many_jobs(chosen: Sequence[tuple[Unit, tuple[Part, ...]]]) -> Iterator[Many]:
    """Small units, as many together as one call does."""
    alike: dict[object, list[tuple[Unit, tuple[Part, ...]]]] = {}
    known: dict[int, object] = {}  # many units have the same parts
    for unit, parts in chosen:
        if id(parts) not in known:
            members = [(p.group, p.kept, *(one.index for one in p.members)) for p in parts]
            known[id(parts)] = tuple(members)
        alone = unit if unit.layers > 1 else None
        alike.setdefault((known[id(parts)], unit.signs, alone), []).append((unit, parts))
    for found in alike.values():
        orders, room = Orders(), 0
        made = Many([], [], [], orders)
        for unit, parts in found:
            elements = unit.form.elements
            for position in range(len(unit.names)):
                if len(made.units) == _UNITS or room + elements > _ELEMENTS:
                    yield made
                    made, room = Many([], [], [], orders), 0
                made.units.append(unit)
                made.positions.append(position)
                made.parts.append(parts)
                room += elements
        yield made
