"""Reads what tasks make of the superpositions of one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from randes_cli.live.weights.group import Group, Patterned
from randes_cli.live.weights.held import Held, hold
from randes_cli.live.weights.parts import Part
from randes_cli.live.weights.stack import Stack, stacked
from randes_cli.read.factors import Factors, Pattern, factors_of
from randes_cli.read.retrieve import Retrieval


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A superposed tensor of the checkpoint in its place in the parameter.

    Attributes:
        shape: the tensor's.
        stack: its groups as a kernel reads them, where one does.
    """

    part: Part
    groups: tuple[Group | Patterned, ...]
    shape: tuple[int, ...]
    stack: Stack | None = None

    @property
    def factors(self) -> tuple[Group, ...]:
        """Its groups, where all of their signs factor; else none."""
        found = tuple(group for group in self.groups if isinstance(group, Group))
        return found if len(found) == len(self.groups) else ()

    def add_to(
        self, parameter: torch.Tensor, task: int, place: tuple[int | slice, ...] = ()
    ) -> None:
        """Add the delta of one task in place."""
        target = parameter[place] if place else parameter
        for group in self.groups:
            if task in group.tasks:
                delta = group.delta(task, parameter.dtype)
                if isinstance(group, Group):
                    delta = delta.reshape(self.part.shape(self.shape))
                else:
                    delta = self.part.cut(delta.reshape(self.shape))
                target += delta.mT if self.part.turned else delta


#: Superpositions that were read, by group and the name that they are kept under.
Read = dict[tuple[int, str], Held]


def block_of(
    part: Part,
    retrievals: Sequence[Retrieval],
    chosen: Sequence[int],
    base: torch.Tensor,
    read: Read,
    *,
    dense: bool,
) -> Block:
    """The groups of one superposed tensor, each with what its tasks make of it.

    `chosen` are the tasks that it is superposed for, numbers of `retrievals`, of which the last
    is the base's. Raises BankDamaged.
    """
    made: list[Group | Patterned] = []
    found = sorted(_found(part.name, retrievals, chosen), key=lambda one: one[0])
    runs = [list(run) for _, run in groupby(found, key=lambda one: one[0])]
    for run in runs:
        key, task, first = run[0]
        if key not in read:
            read[key] = hold(
                retrievals[task], part.name, dtype=base.dtype, device=base.device, dense=dense
            )
        tasks = {number: what for _, number, what in run}
        if isinstance(first, Pattern):
            made.append(_patterned(read[key], tasks, retrievals, base))
        else:
            group = _group(read[key], tasks, retrievals, base, alone=len(runs) == 1)
            made.append(group if part.rows is None else group.some(part.rows))
    named = retrievals[-1].tensors.get(part.name)
    shape = named.shape if named is not None else tuple(base.shape)
    factors = [group for group in made if isinstance(group, Group)]
    together = len(factors) == len(made) and len({run[0][0][1] for run in runs}) == 1
    stack = stacked(factors, base) if together and part.whole else None
    return Block(part, tuple(made) if stack is None else stack.groups, shape, stack)


def _found(
    name: str, retrievals: Sequence[Retrieval], chosen: Sequence[int]
) -> Iterator[tuple[tuple[int, str], int, Factors | Pattern]]:
    """(group and name of the superposition, task, what the task makes of it)."""
    for task in chosen:
        made = factors_of(retrievals[task], name)
        if made is not None:
            factors = made.factors if isinstance(made, Pattern) else made
            yield (factors.group, factors.held), task, made


def _unit(factors: Factors, held: Held, retrieval: Retrieval) -> float:
    """What one unit of `held` is worth to a task."""
    return retrieval.coefficient * 2.0 ** (factors.step + held.exponent) * factors.share.every


def _group(
    held: Held,
    tasks: dict[int, Factors | Pattern],
    retrievals: Sequence[Retrieval],
    base: torch.Tensor,
    *,
    alone: bool,
) -> Group:
    down, across = (base.new_zeros(len(retrievals), size) for size in held.view)
    for task, factors in tasks.items():
        assert isinstance(factors, Factors)
        rows, columns = (torch.from_numpy(side).float() for side in (factors.a, factors.b))
        if factors.scales is not None:
            rows = rows * torch.from_numpy(factors.scales[0])
            columns = columns * torch.from_numpy(factors.scales[1])
        down[task] = (rows * _unit(factors, held, retrievals[task])).to(base)
        across[task] = columns.to(base)
    return Group(held, down, across, frozenset(tasks), alone)


def _patterned(
    held: Held,
    tasks: dict[int, Factors | Pattern],
    retrievals: Sequence[Retrieval],
    base: torch.Tensor,
) -> Patterned:
    patterns = {task: p for task, p in tasks.items() if isinstance(p, Pattern)}
    first = next(iter(patterns.values()))
    signs = torch.zeros(len(retrievals), len(first.signs), dtype=torch.int8)
    units = torch.zeros(len(retrievals))
    for task, pattern in patterns.items():
        signs[task] = torch.from_numpy(pattern.signs)
        units[task] = _unit(pattern.factors, held, retrievals[task])
    scales = None
    if first.factors.scales is not None:
        rows, columns = (torch.from_numpy(side).to(base) for side in first.factors.scales)
        scales = rows, columns
    return Patterned(
        held,
        first.matrix,
        signs.to(base.device),
        first.hankel,
        units.to(base),
        scales,
        frozenset(tasks),
    )
