"""A small parameter as each row of a batch has it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from randes_cli.errors import MismatchError


class Spread(NamedTuple):
    """[rows, …] (or [rows, tokens, …], where `lead` is 2) of a parameter […]."""

    data: torch.Tensor
    lead: int

    @property
    def shape(self) -> torch.Size:
        """Of one row's parameter."""
        return torch.Size(self.data.shape[self.lead :])


def data_of(value: Any) -> Any:
    """With its rows in sight, where it has any."""
    return value.data if isinstance(value, Spread) else value


def met(value: Any, inputs: torch.Tensor, dims: int = 0) -> Any:
    """`align` of what may be no `Spread`, with so many dimensions of 1 behind it."""
    if isinstance(value, Spread):
        data = value.data.reshape(*value.data.shape, *[1] * dims) if dims else value.data
        return align(Spread(data, value.lead), inputs)
    return value.reshape(*value.shape, *[1] * dims) if dims else value


def align(rows: Spread, inputs: torch.Tensor) -> torch.Tensor:
    """As a plain tensor that meets inputs [n, …]: n is the number of rows, or a multiple."""
    data, lead = rows.data, rows.lead
    if lead == 2:
        found = _tokens(rows, inputs)
        if found is not None:
            return found
        data, lead = data.flatten(0, 1), 1
    while data.dim() > inputs.dim():
        if data.dim() == lead or data.shape[lead] != 1:
            raise MismatchError(
                f"a parameter {list(data.shape[lead:])} takes the batch's place; run the tasks one "
                "after the other (randes_cli.Pool)"
            )
        data = data.squeeze(lead)
    dims = data.dim() - lead
    count = inputs.shape[0]
    if count not in (1, data.shape[0]):
        if count % data.shape[0]:
            raise MismatchError(f"inputs {list(inputs.shape)} do not come by rows of the batch")
        data = data.repeat_interleave(count // data.shape[0], 0)
    for _ in range(inputs.dim() - lead - dims):
        data = data.unsqueeze(lead)
    return data


def _tokens(rows: Spread, inputs: torch.Tensor) -> torch.Tensor | None:
    """[rows, tokens, …] to meet inputs whose tokens are in any dimension; None: in none.

    Where several are as long, they are in the outermost in memory, as heads are behind tokens.
    """
    (count, length), dims = rows.data.shape[:2], inputs.dim()
    own = list(rows.shape)
    while len(own) > dims - 1 and own[0] == 1:
        own = own[1:]
    if len(inputs) != count or len(own) > dims - 1:
        return None
    own = [1] * (dims - 1 - len(own)) + own
    places = [k for k in range(1, dims) if inputs.shape[k] == length and own[k - 1] == 1]
    if not places:
        return None
    place = max(places, key=inputs.stride)
    return rows.data.reshape(count, length, *own).movedim(1, place).squeeze(place + 1)
