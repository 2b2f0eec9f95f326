"""Superpositions as they are stored: packed codes or integers, and products with them by tiles.

On a CPU a tile is unpacked by table into the cache and multiplied while it is there, so that no
whole matrix is written and read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from randes_cli.core.codes import table_of
from randes_cli.core.compiled.product import Stored, known, product
from randes_cli.live.weights import blocks

#: Rows of inputs, at most, that compiled code multiplies sooner.
_FEW = {torch.float32: 64, torch.bfloat16: 16, torch.float16: 16}
#: Elements of a tile on a CPU: what stays in a cache. A device takes the whole.
_TILE = 2**18


@lru_cache(maxsize=32)
def _table(bits: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The levels of each byte (of each twelve bits of 3-bit codes), a row each."""
    return torch.from_numpy(table_of(bits)).to(device, dtype)


def _words(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """What `_table` is looked up by."""
    if bits != 3:
        return packed
    low, middle, high = packed.reshape(-1, 3).to(torch.int32).unbind(1)
    return torch.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], 1).reshape(-1)


def unpack(packed: torch.Tensor, bits: int, dtype: torch.dtype) -> torch.Tensor:
    """The levels of packed codes; see `core.codes` for how they lie."""
    table, words = _table(bits, dtype, packed.device), _words(packed, bits)
    if packed.device.type != "cpu":
        return F.embedding(words.to(torch.int32), table).reshape(-1)
    # NumPy takes rows as items of their size, several times as fast as torch.
    rows = table.view(torch.uint8).numpy().view(f"V{table.shape[1] * table.element_size()}")
    found = np.take(rows[:, 0], words.numpy(), mode="clip").view(np.uint8)
    return torch.from_numpy(found).view(dtype)


def _values(
    stored: torch.Tensor, bits: int, columns: int, rows: slice, dtype: torch.dtype, scale: float
) -> torch.Tensor:
    """Some rows of a stored matrix of `columns`, times `scale`. Of codes, `rows` begins at a byte.

    `bits` is that of packed codes, 0 for integers [R, columns].
    """
    if not bits:
        units = stored[rows]
        if dtype == torch.float16:  # integers may be beyond its range
            return (units.to(torch.float32) * scale).to(dtype)
        return units.to(dtype).mul_(scale)
    first, last = (row * columns for row in (rows.start, rows.stop))
    packed = stored[first // 8 * bits :] if bits == 3 else stored[first * bits // 8 :]
    count = -(-(last - first) // 8) * bits
    found = unpack(packed[:count], bits, dtype)[: last - first]
    return found.reshape(-1, columns)


@torch.library.custom_op("randes_cli::codes_values", mutates_args=())
def values(
    stored: torch.Tensor,
    bits: int,
    columns: int,
    rows: int,
    dtype: torch.dtype,
    scale: float,
) -> torch.Tensor:
    """The first `rows` as `_values` has them, as one operation for `torch.compile`."""
    made = _values(stored, bits, columns, slice(0, rows), dtype, scale)
    return made if made.dtype != stored.dtype else made.clone()


@values.register_fake
def _shape_of_values(
    stored: torch.Tensor, bits: int, columns: int, rows: int, dtype: torch.dtype, *_: Any
) -> torch.Tensor:
    return stored.new_empty(rows, columns, dtype=dtype)


def _tiles(rows: int, columns: int, every: int, device: torch.device) -> Iterator[slice]:
    """Runs of rows that begin at a byte, and with the first of the blocks."""
    if device.type != "cpu":
        yield slice(0, rows)
        return
    step = 8 * every * max(1, _TILE // (8 * every * columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


@torch.library.custom_op("randes_cli::codes_product", mutates_args=())
def codes_product(
    x: torch.Tensor,
    stored: torch.Tensor,
    rows: int,
    columns: int,
    bits: int,
    every: int,
    group: int,
    scale: float,
    turned: bool,
) -> torch.Tensor:
    """x Sᵀ, or x S where `turned`, for inputs [n, …] and S (rows × columns) as it is stored."""
    few = x.device.type == "cpu" and 0 < len(x) <= _FEW.get(x.dtype, 0)
    if few and not (turned and every > 1) and known():
        lies = Stored(stored.numpy(), rows, columns, bits, every, group)
        inputs = (x.float() * scale).numpy()
        found = product(inputs, lies, turned=turned, threads=torch.get_num_threads())
        return torch.from_numpy(found).to(x.dtype)
    width, made = -(-columns // every), []
    total = x.new_zeros(x.shape[0], columns)
    for tile in _tiles(rows, width, every, x.device):
        part = _values(stored, bits, width, tile, x.dtype, scale)
        if turned:
            total += _turned(x[:, tile], part, columns, every, group)
        elif every == 1:
            made.append(F.linear(x, part))
        else:
            made.append(blocks.product(x, blocks.as_blocks(part, every), len(part), group))
    return total if turned else torch.cat(made, 1)


def _turned(
    x: torch.Tensor, part: torch.Tensor, columns: int, every: int, group: int
) -> torch.Tensor:
    if every == 1:
        return x @ part
    return blocks.product_turned(x, blocks.as_blocks(part, every), columns, group)


@codes_product.register_fake
def _shape_of_product(
    x: torch.Tensor, stored: torch.Tensor, rows: int, columns: int, *more: Any
) -> torch.Tensor:
    return x.new_empty(x.shape[0], columns if more[-1] else rows)
