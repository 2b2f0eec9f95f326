"""Pieces that compiled code retrieves whole: of banks that are open here, and nothing to explain.

What it cannot do, or finds wrong, is left to `retrieve`: it makes the same bytes, and says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from randes_cli.core.arrays import Raw
from randes_cli.core.fused_back import Back, Came, Codes
from randes_cli.core.fused_run import Chunk, Place
from randes_cli.core.kernel import Kernel
from randes_cli.files.bank_keys import base_key
from randes_cli.files.source import place_of
from randes_cli.plan import Rect
from randes_cli.read.pieces import Piece
from randes_cli.specs import ITEM_SIZE

if TYPE_CHECKING:
    from randes_cli.read.retrieve import Retrieval


def retrieve_compiled(of: Retrieval, kernel: Kernel, piece: Piece, to: Raw | Place) -> Came | None:
    """Retrieve a superposed piece, named as it is kept, in one call; None where that cannot be.

    What it came to is to be checked.
    """
    name, rect = piece.tensor.name, piece.rect
    unit, position = of.place(name)
    base = _base(of, name, rect)
    found = _sum(of, name, rect) if base is not None else None
    if base is None or found is None or rect != of.whole(piece):
        return None
    chunk = Chunk(rect.start, rect.elements, unit.cols, unit.view, unit.signs)
    key = of.sum_key(name)
    checked = of.checks(base_key(name), piece.chunk), of.checks(key, piece.chunk)
    how = Back(
        base[0],
        found,
        to,
        piece.tensor.dtype,
        unit.flips(of.task.seed, position),
        of.coefficient * 2.0 ** of.bank.manifest.steps[unit.names[position]],
        checked,
        of.turned.asks(name),
    )
    return kernel.back(chunk, how)


#: Where the base's chunk lies, and its dtype: see `Back`; in a tuple, for it may be None.
_Base = tuple[tuple[Place, str] | None]


def _base(of: Retrieval, name: str, rect: Rect) -> _Base | None:
    """None where the base lies in no open file."""
    if of.base is None:
        return (None,)
    place, dtype = place_of(of.base, name), of.base.tensors[name].dtype
    if place is None:
        return None
    return (((place[0], place[1] + rect.start * ITEM_SIZE[dtype]), dtype),)


def _sum(of: Retrieval, name: str, rect: Rect) -> tuple[Place, int] | Codes | None:
    """Where the superposition's chunk lies, and its bits, or its codes; None as of `_base`."""
    key = of.sum_key(name)
    if key not in of.bank or of.share(name).every > 1:
        return None
    dtype = of.bank.info(key).dtype
    if dtype == "U8":
        return of.reader.codes(of.held(name), rect.start, rect.elements)
    place, size = of.bank.where(key), ITEM_SIZE[dtype]
    return None if place is None else ((place[0], place[1] + rect.start * size), 8 * size)
