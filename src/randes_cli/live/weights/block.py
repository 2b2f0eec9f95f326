"""A superposed tensor of a checkpoint as a part of a parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from randes_cli.live.weights.group import Group, Patterned
from randes_cli.live.weights.parts import Part
from randes_cli.live.weights.stack import Stack


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
