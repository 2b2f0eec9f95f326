"""A small parameter as each row of a batch has it."""

from __future__ import annotations

from typing import NamedTuple

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


def align(rows: Spread, inputs: torch.Tensor) -> torch.Tensor:
    """As a plain tensor that meets inputs [n, …]: n is the number of rows, or a multiple."""
    data, lead = rows.data, rows.lead
    if lead == 2 and tuple(inputs.shape[:2]) != tuple(data.shape[:2]):
        data, lead = data.flatten(0, 1), 1
    while data.dim() > inputs.dim():
        if data.dim() == lead or data.shape[lead] != 1:
            raise MismatchError(f"a parameter {list(data.shape[lead:])} takes the batch's place")
        data = data.squeeze(lead)
    dims = data.dim() - lead
    count = inputs.shape[0]
    if lead == 1 and count not in (1, data.shape[0]):
        if count % data.shape[0]:
            raise MismatchError(f"inputs {list(inputs.shape)} do not come by rows of the batch")
        data = data.repeat_interleave(count // data.shape[0], 0)
    for _ in range(inputs.dim() - lead - dims):
        data = data.unsqueeze(lead)
    return data
