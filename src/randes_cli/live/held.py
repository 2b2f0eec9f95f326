"""A superposition as a batch of many tasks uses it: dense, or as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp

import numpy as np
import torch

from randes_cli.core.levels import levels
from randes_cli.files.bank_keys import sum_key
from randes_cli.plan import seal_matrix
from randes_cli.read.factors import superposition
from randes_cli.read.retrieve import Retrieval


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """S of one tensor in one group, times 2^-exponent, so that no half precision overflows.

    Attributes:
        stored: its values in the model's dtype, int8 or int16 units, or packed codes.
        view: (R, C).
        exponent: what the factors of a task make up for.
        bits: of one packed code; 0 where `stored` is a matrix.
    """

    stored: torch.Tensor
    view: tuple[int, int]
    exponent: int
    bits: int

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The whole matrix."""
        if self.bits:
            values = unpack(self.stored, self.bits, dtype)[: self.view[0] * self.view[1]]
            return values.reshape(self.view)
        if self.stored.dtype == dtype:
            return self.stored
        return self._scaled(self.stored, dtype)

    def rows(self, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Some of its rows: [*ids, C]."""
        columns = self.view[1]
        if not self.bits:
            found = self.stored[ids]
            return found if found.dtype == dtype else self._scaled(found, dtype)
        width = columns * self.bits // 8
        if columns * self.bits % 8 or self.bits == 3:
            return self.dense(dtype)[ids]
        packed = self.stored[: self.view[0] * width].reshape(self.view[0], width)[ids]
        return unpack(packed.reshape(-1), self.bits, dtype).reshape(*ids.shape, columns)

    def _scaled(self, units: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if dtype == torch.float16:
            return (units.to(torch.float32) * 2.0**-self.exponent).to(dtype)
        return units.to(dtype).mul_(2.0**-self.exponent)


def unpack(packed: torch.Tensor, bits: int, dtype: torch.dtype) -> torch.Tensor:
    """The levels of packed codes; see `core.codes` for how they lie."""
    table = torch.from_numpy(np.array(levels(bits), np.float32)).to(packed.device, dtype)
    if bits == 3:
        low, middle, high = packed.reshape(-1, 3).to(torch.int32).unbind(1)
        word = (low | middle << 8 | high << 16)[:, None]
    else:
        word = packed.to(torch.int32)[:, None]
    count = 8 if bits == 3 else 8 // bits
    shifts = bits * torch.arange(count, dtype=torch.int32, device=packed.device)
    return table[((word >> shifts) & (2**bits - 1)).long()].reshape(-1)


def hold(
    retrieval: Retrieval, name: str, *, dtype: torch.dtype, device: torch.device, dense: bool
) -> Held:
    """Read the superposition that a tensor of a task lies in, checked. Raises BankDamaged."""
    held = retrieval.held(name)
    key = sum_key(retrieval.task.group, held.name)
    view = seal_matrix(held)
    sealed = retrieval.bank.info(key).dtype == "U8"
    share = retrieval.share(name)
    if sealed and not dense and share.every == 1:
        bits = retrieval.bank.manifest.sealed[retrieval.task.group].bits
        packed = torch.from_numpy(retrieval.bank.read_whole(key))
        return Held(packed.to(device), view, 0, bits)
    stored = superposition(retrieval, name)
    if share.every > 1:  # held whole, with zeros where the share has nothing
        stored = share.spread(stored.reshape(-1), 0, view[0] * view[1]).reshape(view)
    units = torch.from_numpy(np.ascontiguousarray(stored))
    if sealed:
        return Held(units.to(device=device, dtype=dtype), view, 0, 0)
    peak = max(int(units.max()), -int(units.min()), 1)
    made = Held(units.to(device), view, frexp(peak)[1], 0)
    if dense:
        return Held(made.dense(dtype), view, made.exponent, 0)
    return made
