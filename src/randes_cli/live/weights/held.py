"""A superposition as a batch of many tasks uses it: dense, or as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import frexp

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.files.bank.keys import sum_key
from randes_cli.live.weights import blocks
from randes_cli.live.weights.codes import codes_product, values
from randes_cli.plan import seal_matrix
from randes_cli.read.factors import superposition
from randes_cli.read.retrieve import Retrieval


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """S of one tensor in one group, times 2^-exponent, so that no half precision overflows.

    Attributes:
        stored: in the model's dtype (`dense`): S, or the blocks of a share [m, ⌈R/m⌉, ⌈C/m⌉].
            Else its rows as the bank stores them: int8 or int16 units, or packed codes.
        view: (R, C).
        exponent: what the factors of a task make up for.
        bits: of one packed code; 0 where `stored` has numbers.
        every: m; the group has one m-th of the elements.
        group: which m-th (see `core.share`).
        dense: whether `stored` is multiplied by as it is.
    """

    stored: torch.Tensor
    view: tuple[int, int]
    exponent: int
    bits: int
    every: int
    group: int
    dense: bool

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes

    @property
    def _width(self) -> int:
        """Columns of a row as it is stored."""
        return -(-self.view[1] // self.every)

    @property
    def _scale(self) -> float:
        return 1.0 if self.bits else 2.0**-self.exponent

    def product(self, x: torch.Tensor, *, turned: bool = False) -> torch.Tensor:
        """x Sᵀ: [..., C] → [..., R]; x S where `turned`: [..., R] → [..., C]."""
        if self.dense and self.every == 1:
            return torch.matmul(x, self.stored) if turned else F.linear(x, self.stored)
        flat, size = x.reshape(-1, x.shape[-1]), self.view[turned]
        made: torch.Tensor
        if self.dense:
            made = (blocks.product_turned if turned else blocks.product)(
                flat, self.stored, size, self.group
            )
        else:
            made = codes_product(
                *(flat, self.stored, *self.view, self.bits, self.every, self.group),
                *(self._scale, turned),
            )
        return made.reshape(*x.shape[:-1], size)

    def matrix(self, dtype: torch.dtype) -> torch.Tensor:
        """The whole of S."""
        if self.every == 1:
            return self.stored if self.dense else self._all(dtype)
        return blocks.whole(self._blocks(dtype), self.view, self.group)

    def _all(self, dtype: torch.dtype) -> torch.Tensor:
        return self._values(self.stored, self.view[0], dtype)

    def _values(self, stored: torch.Tensor, rows: int, dtype: torch.dtype) -> torch.Tensor:
        made: torch.Tensor = values(stored, self.bits, self._width, rows, dtype, self._scale)
        return made

    def _blocks(self, dtype: torch.dtype) -> torch.Tensor:
        if self.dense:
            return self.stored
        return blocks.as_blocks(self._all(dtype), self.every)

    def rows(self, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Some of its rows: [*ids, C]."""
        if self.dense and self.every > 1:
            found = self.stored[ids % self.every, ids // self.every]
        elif self.dense:
            found = self.stored[ids]
        elif self.bits and (self._width * self.bits % 8 or self.bits == 3):
            found = self._all(dtype)[ids]
        else:
            found = self._some(ids.reshape(-1), dtype).reshape(*ids.shape, self._width)
        if self.every == 1:
            return found
        return blocks.spread_rows(found, ids, self.view[1], self.every, self.group)

    def _some(self, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Rows that are whole bytes, as they are stored."""
        kept = self.stored
        if self.bits:
            nbytes = self._width * self.bits // 8
            kept = kept[: self.view[0] * nbytes].reshape(self.view[0], nbytes)[ids].reshape(-1)
        else:
            kept = kept[ids]
        return self._values(kept, len(ids), dtype)

    def part(self, rows: slice, dtype: torch.dtype) -> Held:
        """Some of its rows (an expert's, say), as a superposition of their own."""
        view = (rows.stop - rows.start, self.view[1])
        if rows.start % self.every == 0 and self.dense:
            at = slice(rows.start // self.every, -(-rows.stop // self.every))
            kept = self.stored[rows] if self.every == 1 else self.stored[:, at]
            return replace(self, stored=kept, view=view)
        if rows.start % self.every == 0 and not self.bits:
            return replace(self, stored=self.stored[rows], view=view)
        if rows.start % self.every == 0 and rows.start * self._width % 8 == 0:
            first, last = (
                -(-row * self._width // 8) * self.bits for row in (rows.start, rows.stop)
            )
            return replace(self, stored=self.stored[first:last], view=view)
        kept = self.matrix(dtype)[rows]
        return replace(self, stored=kept, view=view, bits=0, every=1, dense=True)

    def some(self, rows: Sequence[int], dtype: torch.dtype) -> Held:
        """Rows in any order, as a superposition of their own."""
        if isinstance(rows, range):
            return self.part(slice(rows.start, rows.stop), dtype)
        kept = self.matrix(dtype)[torch.tensor(rows, device=self.stored.device)]
        view = (len(rows), self.view[1])
        return replace(self, stored=kept, view=view, bits=0, every=1, dense=True)


def hold(
    retrieval: Retrieval, name: str, *, dtype: torch.dtype, device: torch.device, dense: bool
) -> Held:
    """Read the superposition that a tensor of a task lies in, checked. Raises BankDamaged."""
    held = retrieval.held(name)
    key = sum_key(retrieval.task.group, held.name)
    sealed = retrieval.bank.info(key).dtype == "U8"
    share = retrieval.share(name)
    form = partial(Held, view=seal_matrix(held), every=share.every, group=share.group)
    if sealed and not dense:
        bits = retrieval.bank.manifest.sealed[retrieval.task.group].bits
        packed = torch.from_numpy(retrieval.bank.read_whole(key))
        return form(packed.to(device), exponent=0, bits=bits, dense=False)
    units = torch.from_numpy(np.ascontiguousarray(superposition(retrieval, name))).to(device)
    peak = 1 if sealed else max(int(units.max()), -int(units.min()), 1)
    exponent = 0 if sealed else frexp(peak)[1]
    made = form(units, exponent=exponent, bits=0, dense=False)
    return made_dense(made, dtype) if dense else made


def made_dense(held: Held, dtype: torch.dtype) -> Held:
    """The same as numbers that are multiplied by as they are."""
    kept = held.matrix(dtype) if held.every == 1 else held._blocks(dtype).contiguous()
    return replace(held, stored=kept, bits=0, dense=True)
