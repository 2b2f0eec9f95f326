"""Pieces that compiled code retrieves whole: of banks that are open here, and nothing to explain.

What it cannot do, or finds wrong, is left to `retrieve`: it makes the same bytes, and says why.
"""

from __future__ import annotations

from typing import TypeAlias

from randes_cli.core.arrays import Raw
from randes_cli.core.compiled.back import Back, Came, Codes
from randes_cli.core.compiled.run import Chunk, Place
from randes_cli.core.kernel import Kernel
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.base import BankBase
from randes_cli.files.source import place_of
from randes_cli.plan import Rect, share_of
from randes_cli.read.pieces import Piece
from randes_cli.read.sealed import StepsReader
from randes_cli.read.task_tensors import TaskTensors
from randes_cli.specs import ITEM_SIZE, TensorInfo


def retrieve_compiled(
    task: TaskTensors,
    base: BankBase | None,
    reader: StepsReader | None,
    kernel: Kernel,
    piece: Piece,
    to: Raw | Place,
    *,
    coefficient: float,
    digests: tuple[bool, bool],
    turned: bool,
) -> Came | None:
    """Retrieve a superposed piece, named as it is kept, in one call; None where that cannot be.

    Which `digests` (of the base's chunk, and of the sum's) are wanted, and whether signs are looked
    at, are as of `Back`; what comes is to be checked.
    """
    name, rect = piece.tensor.name, piece.rect
    unit, position = task.place(name)
    held = task.bank.manifest.base.tensors[unit.names[position]]
    place = _base(base, name, rect)
    found = None if place is None else _sum(task, reader, held, rect)
    if place is None or found is None or rect != task.whole(piece):
        return None
    how = Back(
        place[0],
        found,
        to,
        piece.tensor.dtype,
        unit.flips(task.task.seed, position),
        coefficient * 2.0 ** task.bank.manifest.steps[unit.names[position]],
        digests,
        turned,
    )
    chunk = Chunk(rect.start, rect.elements, unit.cols, unit.view, unit.signs)
    return kernel.backer.back(chunk, how) if kernel.backer else None


#: Where the base's chunk lies, and its dtype, as of `Back`: in a tuple, for it may be None.
_Base: TypeAlias = tuple[tuple[Place, str] | None]


def _base(base: BankBase | None, name: str, rect: Rect) -> _Base | None:
    """None where the base lies in no open file."""
    if base is None:
        return (None,)
    place, dtype = place_of(base, name), base.tensors[name].dtype
    if place is None:
        return None
    return (((place[0], place[1] + rect.start * ITEM_SIZE[dtype]), dtype),)


def _sum(
    task: TaskTensors, reader: StepsReader | None, held: TensorInfo, rect: Rect
) -> tuple[Place, int] | Codes | None:
    """Where the chunk of a superposition, `held` under a tensor's name, lies, and its bits, or its
    codes; None as of `_base`."""
    group, shares = task.task.group, task.bank.manifest.shares
    key = sum_key(group, held.name)
    if key not in task.bank or (group in shares and share_of(held, group, shares).every > 1):
        return None
    dtype = task.bank.info(key).dtype
    if dtype == "U8":
        return None if reader is None else reader.codes(held, rect.start, rect.elements)
    place, size = task.bank.where(key), ITEM_SIZE[dtype]
    return None if place is None else ((place[0], place[1] + rect.start * size), 8 * size)
