"""Tensors told apart line by line: whether one is another, turned by a row."""

from __future__ import annotations

from typing import NamedTuple

import torch

#: Lines are the same where they differ by this share of their length: rounding.
_NEAR = {torch.float16: 3e-2, torch.bfloat16: 3e-2}
_NEAR_SINGLE = 3e-4


class Lines(NamedTuple):
    """Of each line [n, m] one number that tells it from others, and its length."""

    values: torch.Tensor
    lengths: torch.Tensor
    near: float

    @classmethod
    def of(cls, x: torch.Tensor) -> Lines:
        inner = x.shape[1] if x.dim() > 2 else 1
        flat = x.detach().reshape(len(x), inner, x[0].numel() // max(inner, 1))
        flat = (flat.abs() if flat.is_complex() else flat).float().nan_to_num(0.0, 1.0, -1.0)
        places = torch.arange(flat.shape[-1], device=x.device, dtype=torch.float32)
        return cls(
            flat @ torch.cos(1.7 * places + 0.3),
            flat.norm(dim=-1),
            _NEAR.get(x.dtype, _NEAR_SINGLE),
        )

    @property
    def is_shared(self) -> bool:
        """Whether it is one line for all rows of a batch."""
        return len(self.values) == 1

    def turns_into(self, other: Lines, rows: int) -> bool:
        """Whether `other` is this with its rows turned by one place, if it has rows.

        A row is another where most of its lines are: single ones change with rounding, where
        models choose experts or places.
        """
        whole = len(self.values) % rows == 0 and self.values.shape == other.values.shape
        return whole and self._as(other, rows, len(self.values) // rows)

    def is_same(self, other: Lines, rows: int = 1) -> bool:
        return self.values.shape == other.values.shape and self._as(other, rows, 0)

    def _as(self, other: Lines, rows: int, places: int) -> bool:
        values, lengths = self.values.roll(places, 0), self.lengths.roll(places, 0)
        gap, most = (other.values - values).abs(), torch.maximum(other.lengths, lengths)
        off = gap > self.near * most + 1e-7 * most.amax()
        return not bool((off.reshape(rows, -1).float().mean(1) > 0.5).any())
