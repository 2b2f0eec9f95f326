"""What becomes of a superposition that is cut to few bits, or has a share of its elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from randes_cli.core.arrays import F64, I64, parts
from randes_cli.core.levels import DISTORTION
from randes_cli.core.prediction.mixture import Mixture, Shapes

#: Numbers of deltas that are looked at together.
_ROOM = 2**16


@dataclass(frozen=True)
class Cut:
    """What becomes of a group's superposition S as it is read, Q: by tensor.

    Levels that are means of their cells, of a Gaussian S, and the gain 1 / (1 − D) make
    ⟨x, Q⟩ = ⟨x, S⟩ and ‖Q‖² = ‖S‖² / (1 − D). Sums of few or of sparse deltas are not Gaussian:
    tails tell how far, and sealing measures what becomes of them. A share of one element in m
    comes back m times as large, so that ⟨x, Q⟩ stays and ‖Q‖² grows by m.

    Attributes:
        share: m; where several are looked at together, a row for each.
        bits: of those that are cut, None where none is.
        side: the shorter side of each tensor's matrix where it is cut, 0 where it stays live.
        kept: ⟨S, Q⟩ / ⟨S, S⟩ as it was measured; NaN where it was not.
        length: ‖Q‖² likewise.
    """

    share: F64
    bits: int | None
    side: F64
    kept: F64
    length: F64

    @classmethod
    def supposed(cls, share: F64, bits: int | None = None, side: F64 | None = None) -> Cut:
        """Nothing measured."""
        unknown = np.full(share.shape[-1], np.nan)
        side = np.zeros(len(unknown)) if side is None else side
        return cls(share, bits, side, unknown, unknown)

    def measured(self, squares: F64, crossed: F64, length: F64) -> Cut:
        """With ‖S‖² and ⟨S, Q⟩ of what is stored, and ‖Q‖² of it; where S is any."""
        there = squares > 0
        kept = np.divide(crossed, squares, out=self.kept.copy(), where=there)
        return replace(self, kept=kept, length=np.where(there, self.share**2 * length, self.length))

    def read(self, energy: F64, tails: Sequence[F64] | None, whole: F64) -> tuple[F64, F64]:
        """⟨x, Q⟩ / ⟨x, S⟩ of every delta x in S, tensors × T, and ‖Q‖².

        `energy` are their ‖x‖², `tails` as of `core.tails.tails`, `whole` is ‖S‖² of a dense S.
        """
        kept, length = np.ones(energy.shape), np.ones(len(energy))
        known = ~np.isnan(self.kept)
        kept[known] = self.kept[known, None]
        if self.bits is not None:
            length = length / (1.0 - (self.side > 0) * DISTORTION[self.bits])
            if tails is not None and energy.shape[1]:
                whole_rows = np.flatnonzero(self.side)
                for part in parts(len(whole_rows), _ROOM // energy.shape[1]):
                    rows = whole_rows[part]
                    some = [tail[rows] for tail in tails]
                    kept[rows], length[rows] = self._mixed(self.bits, rows, energy[rows], some)
        return kept, np.where(known, self.length, self.share * length * whole)

    def _mixed(self, bits: int, rows: I64, energy: F64, tails: Sequence[F64]) -> tuple[F64, F64]:
        """Of some tensors that are cut: what each delta keeps, and the length of each sum."""
        found = Mixture(energy, Shapes.of(tails), self.side[rows], bits)
        measured, supposed = self.kept[rows], found.supposed()
        known = ~np.isnan(measured)
        if known.any():
            supposed = np.where(known[:, None], found.fitted(measured), supposed)
        return supposed, found.length()
