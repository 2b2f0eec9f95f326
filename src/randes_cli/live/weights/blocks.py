"""Products with a share of a matrix, as dense blocks of strided rows and columns.

The share of a group g has the elements (i, j) with (i + j + g) mod m = 0 (`core.share`): rows of
residue r meet columns of residue q = (−r − g) mod m alone, which is its own inverse. So it is m
matrices of a 1/m of the rows by a 1/m of the columns, and a product costs a 1/m of the whole.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812


def partners(every: int, group: int) -> list[int]:
    """The residue of columns that each residue of rows meets, and the other way round."""
    return [(-residue - group) % every for residue in range(every)]


def as_blocks(stored: torch.Tensor, every: int) -> torch.Tensor:
    """Rows as they are stored, [R, ⌈C/m⌉], as blocks: [m, ⌈R/m⌉, ⌈C/m⌉], zeros at the ends."""
    padded = F.pad(stored, (0, 0, 0, -len(stored) % every))
    return padded.reshape(-1, every, stored.shape[1]).transpose(0, 1)


def whole(blocks: torch.Tensor, view: tuple[int, int], group: int) -> torch.Tensor:
    """The matrix [R, C] with zeros outside the share."""
    every, rows, columns = blocks.shape
    made = blocks.new_zeros(rows, every, columns, every)
    for residue, partner in enumerate(partners(every, group)):
        made[:, residue, :, partner] = blocks[residue]
    return made.reshape(rows * every, columns * every)[: view[0], : view[1]]


def product(x: torch.Tensor, blocks: torch.Tensor, rows: int, group: int) -> torch.Tensor:
    """x Sᵀ: [n, C] → [n, R]."""
    every = len(blocks)
    order = torch.tensor(partners(every, group), device=x.device)
    made = torch.bmm(_dealt(x, every)[order], blocks.transpose(1, 2))
    return _collected(made, rows)


def product_turned(x: torch.Tensor, blocks: torch.Tensor, columns: int, group: int) -> torch.Tensor:
    """x S: [n, R] → [n, C]."""
    every = len(blocks)
    order = torch.tensor(partners(every, group), device=x.device)
    return _collected(torch.bmm(_dealt(x, every), blocks)[order], columns)


def spread_rows(
    found: torch.Tensor, ids: torch.Tensor, columns: int, every: int, group: int
) -> torch.Tensor:
    """Rows `ids` of the matrix, [*ids, C], of what the share has of them, [*ids, ⌈C/m⌉]."""
    made = found.new_zeros(*found.shape, every)
    place = ((-ids - group) % every)[..., None, None].expand(*found.shape, 1)
    return made.scatter(-1, place, found[..., None]).flatten(-2)[..., :columns]


def _dealt(x: torch.Tensor, every: int) -> torch.Tensor:
    """Columns by residue: [n, size] → [m, n, ⌈size/m⌉]."""
    padded = F.pad(x, (0, -x.shape[1] % every))
    return padded.reshape(len(x), -1, every).permute(2, 0, 1)


def _collected(x: torch.Tensor, size: int) -> torch.Tensor:
    """The inverse of `_dealt`."""
    return x.permute(1, 2, 0).flatten(1)[:, :size]
