"""Where tensors of a checkpoint lie in the parameters of a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from randes_cli.errors import MismatchError

#: What compares values bit by bit, by their size in bytes.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Part:
    """Where a tensor of a checkpoint lies in a parameter.

    Attributes:
        name: the tensor's.
        place: the slice of the parameter along each of its dimensions (of an integer: one);
            empty where it is the whole parameter.
        turned: whether its last two dimensions are exchanged there.
        rows: which rows of the tensor lie there, in their order; None: all.
        length: how many rows the tensor has, where `rows` are some of them.
    """

    name: str
    place: tuple[int | slice, ...] = ()
    turned: bool = False
    rows: Sequence[int] | None = None
    length: int = 0

    @property
    def whole(self) -> bool:
        """Whether tensor and parameter are the same."""
        return not self.place and not self.turned and self.rows is None

    def shape(self, tensor: Sequence[int]) -> tuple[int, ...]:
        """Of what lies in the parameter of a tensor of this shape."""
        return tuple(tensor) if self.rows is None else (len(self.rows), *tensor[1:])

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of the tensor what lies in the parameter. Raises MismatchError."""
        if self.rows is None:
            return tensor
        if len(tensor) != self.length:
            raise MismatchError(
                f"tensor {self.name!r} has {len(tensor)} rows in a task and {self.length} in the "
                "base, and lies in several parameters: these are different networks"
            )
        if isinstance(self.rows, range):
            return tensor[self.rows.start : self.rows.stop]
        return tensor[torch.tensor(self.rows, device=tensor.device)]

    def put(self, tensor: torch.Tensor, parameter: torch.Tensor) -> None:
        """Copy the tensor to its place."""
        target, found = self._both(tensor, parameter)
        target.copy_(found)

    def keep(self, tensor: torch.Tensor, parameter: torch.Tensor) -> None:
        """The same, where it is not there already: others may be reading the parameter."""
        target, found = self._both(tensor, parameter)
        if not _same_bits(target, found):
            target.copy_(found)

    def _both(
        self, tensor: torch.Tensor, parameter: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.cut(tensor)
        place = parameter[self.place] if self.place else parameter
        return place, found.mT if self.turned else found


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    kind = _BITS.get(one.element_size())
    if kind is None or one.is_meta or one.shape != other.shape:
        return False
    return torch.equal(one.detach().view(kind), other.view(kind))


Parts = tuple[Part, ...]
