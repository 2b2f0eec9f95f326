"""Superpositions that are cut, and the sums of squares that their scales are found by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F16, F64, I64
from randes_cli.core.codes import fit_scales
from randes_cli.core.seal_passes import Units, add_squares
from randes_cli.core.share import Share
from randes_cli.files.bank.checks import cut_shape
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import cut_key, sealed_tensors, sum_key
from randes_cli.files.bank.writer import BankWriter
from randes_cli.plan import Rect, chunks, sealable, share_of
from randes_cli.specs import TensorInfo
from randes_cli.stats.lengths import norm_rows


@dataclass(frozen=True, slots=True)
class Sum:
    """One live superposition that is cut: its group, the base's tensor, its elements."""

    group: int
    tensor: TensorInfo
    share: Share
    grid: list[Rect]

    @property
    def key(self) -> str:
        return sum_key(self.group, self.tensor.name)

    @property
    def elements(self) -> int:
        """As stored."""
        return prod(self.share.shape)

    def sealed(self, bits: int) -> tuple[TensorInfo, TensorInfo]:
        """Its scales and codes, once it is cut to so many bits."""
        return sealed_tensors(self.group, self.tensor, bits, self.share)


def sums_of(bank: BankFile, groups: Collection[int]) -> list[Sum]:
    """The superpositions of groups that can be cut, group by group in the order of the base."""
    made, shares = [], bank.manifest.shares
    for group in groups:
        for tensor in bank.manifest.base.tensors.values():
            key = sum_key(group, tensor.name)
            if key in bank and sealable(tensor):
                grid = chunks(*bank.info(key).matrix)
                made.append(Sum(group, tensor, share_of(tensor, group, shares), grid))
    return made


def measured_tensors(base: Mapping[str, TensorInfo], groups: Iterable[int]) -> list[TensorInfo]:
    """What sealing says of each group, as a bank stores it."""
    shape = cut_shape(len(norm_rows(base)))
    return [TensorInfo(cut_key(group), "F64", shape) for group in groups]


def place_sealed(writer: BankWriter, sums: Sequence[Sum], bits: int) -> None:
    """Place the scales of superpositions, then their codes."""
    for number in (0, 1):
        for one in sums:
            writer.place(one.sealed(bits)[number])
    writer.close_shard()


def scale_bytes(rows: F16, columns: F16) -> bytes:
    """Scales as a bank stores them."""
    return np.concatenate([rows, columns]).astype("<f2").tobytes()


#: Sums of squares by row, and by residue of rows and column of the share.
Squares: TypeAlias = tuple[I64, I64]


def no_squares(share: Share) -> Squares:
    """Those of no element."""
    return np.zeros(share.rows, np.int64), np.zeros((share.every, share.shape[1]), np.int64)


def no_part(squares: Squares, start: int, count: int) -> Squares:
    """As `no_squares`, for `count` elements from `start` on: of rows from theirs on."""
    cols = squares[1].shape[1]
    rows = -(-(start + count) // cols) - start // cols
    return np.zeros(rows, np.int64), np.zeros_like(squares[1])


def add_part(squares: Squares, start: int, part: Squares) -> None:
    """Add those of elements `start` and on."""
    first = start // squares[1].shape[1]
    squares[0][first : first + len(part[0])] += part[0]
    squares[1][:] += part[1]


def squares_of(squares: Squares, units: Units, start: int) -> Squares:
    """Those of stored elements `start` and on, to be added to `squares` with `add_part`."""
    part = no_part(squares, start, len(units))
    add_squares(units, start, *part)
    return part


def fitted_to(squares: Squares, share: Share, bits: int) -> tuple[F16, F16]:
    """The scales of rows and columns."""
    along, table = squares
    return fit_scales(along, share.columns(table), bits, share)


def moments_of(
    base: Mapping[str, TensorInfo],
    steps: Mapping[str, int],
    groups: Iterable[int],
    found: Iterable[tuple[Sum, Agreement, int]],
) -> dict[int, F64]:
    """What became of each group's superpositions, as ``stats/sealed/<group>`` has it.

    `found` are agreements, and the part that their values count in.
    """
    rows = norm_rows(base)
    row = {name: n for n, name in enumerate(rows)}
    made = {group: np.zeros(cut_shape(len(rows))) for group in groups}
    for one, agreement, part in found:
        name = one.tensor.name
        made[one.group][:, row[name]] = agreement.moments(steps[name], part)
    return made
