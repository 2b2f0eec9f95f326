"""The CPU backend with its passes fused, where `fused.c` was compiled: equal bytes, sooner."""

from __future__ import annotations

import ctypes

import numpy as np

from randes_cli.core.arrays import Raw, address
from randes_cli.core.compiled.back import Backer
from randes_cli.core.compiled.library import library
from randes_cli.core.compiled.run import DTYPES, FOUND, SIGNS, Runner
from randes_cli.core.compiled.sample import SignBits
from randes_cli.core.convert import NEVER_BEYOND, widen
from randes_cli.core.energy import Energy
from randes_cli.core.kernel import Added, NumpyKernel, code_dtype
from randes_cli.core.signs import SignRun, Window

_ANY_F32 = 3


class _Found(ctypes.Structure):
    _fields_ = FOUND


def available() -> bool:
    return library() is not None


def processor(most: int = 0) -> int:
    """The generation of x86-64 that the passes run for (1, 3 or 4); `most` bounds it, for tests."""
    compiled = library()
    return 0 if compiled is None else int(compiled.randes_processor(most))


def digest(data: bytes, piece: int) -> bytes:
    """XXH3-128 as `run.c` makes it: `piece` (of 64 bytes) at a time."""
    compiled, made = library(), ctypes.create_string_buffer(16)
    if compiled is not None:
        compiled.randes_digest(data, len(data), piece, made)
    return made.raw


class FusedKernel(NumpyKernel):
    """As NumpyKernel, whose rare passes it keeps; sums are 32-bit integers from the start."""

    runner: Runner
    backer: Backer

    def __init__(self, elements: int, layers: int) -> None:
        super().__init__(elements, layers)
        compiled = library()
        if compiled is None:
            raise RuntimeError("fused.c was not compiled")
        self._library = compiled
        self._totals = self._sum.view(np.int32)
        self._rows_at = [address(row) for row in self._base]
        self._sum_at, self._codes_at = address(self._sum), address(self._codes)
        self._signs = SignBits(scratch=address(self._scratch))
        self._signs_at = ctypes.addressof(self._signs)
        self._found = _Found()
        self._found_at = ctypes.addressof(self._found)
        self.runner = Runner(
            compiled,
            elements,
            base=address(self._base),
            scratch=address(self._scratch),
            sum=self._sum_at,
            raw=address(self._raw),
        )
        base, scratch, raw = self._rows_at[0], address(self._scratch), address(self._raw)
        self.backer = Backer(compiled, elements, base, scratch, raw)

    def set_base(self, layer: int, raw: Raw | None, dtype: str, elements: int) -> None:
        if raw is None or dtype not in ("BF16", "F16"):
            super().set_base(layer, raw, dtype, elements)
        else:
            to = self._rows_at[layer]
            self._library.randes_widen(address(raw), DTYPES[dtype], to, elements)

    def begin(self, elements: int, codes: Raw | None, bits: int) -> None:
        self._size = elements
        if codes is None:
            self._totals[:elements] = 0
        else:
            np.copyto(self._totals[:elements], codes.view(code_dtype(bits)))

    def _take(self, window: Window) -> None:
        """Put a window where fused.c looks for it."""
        signs = self._signs
        signs.kind, signs.bits = SIGNS[window.signs], window.bits
        signs.first, signs.scale = window.first, window.scale
        if isinstance(window, SignRun):
            signs.rows, signs.cols = window.view
            signs.count = window.elements
        else:
            signs.rows, signs.cols = window.shape

    def add(self, layer: int, raw: Raw, dtype: str, signs: Window) -> Added:
        values, kind = raw, dtype
        if dtype not in DTYPES:
            rows, cols = signs.shape
            widened, kind = self._delta[: rows * cols], "F32"
            widen(raw, dtype, widened)
            values = widened.view(np.uint8)
        self._take(signs)
        refused = self._library.randes_add(
            address(values),
            DTYPES[kind],
            self._rows_at[layer],
            self._signs_at,
            self._sum_at,
            self._found_at,
        )
        if refused:
            self._refuse(layer, raw, dtype, step=1 / abs(signs.scale))
        found = self._found
        return Added(Energy(found.squares, found.crossed, found.rests), bool(found.changed))

    def finish(self, bits: int) -> tuple[Raw, int]:
        peak = self._library.randes_store(self._sum_at, self._size, bits, self._codes_at)
        return self._codes[: self._size * bits // 8], peak

    def retrieve(self, codes: Raw, bits: int, signs: Window, dtype: str, out: Raw) -> int:
        if dtype not in DTYPES:
            return super().retrieve(codes, bits, signs, dtype, out)
        return self._retrieve(codes, bits, signs, self._rows_at[0], DTYPES[dtype], out)

    def retrieve_onto(self, codes: Raw, bits: int, signs: Window, out: Raw) -> int:
        kind = _ANY_F32 if abs(signs.scale) < NEVER_BEYOND else DTYPES["F32"]
        return self._retrieve(codes, bits, signs, address(out), kind, out)

    def _retrieve(
        self, codes: Raw, bits: int, signs: Window, base: int, kind: int, out: Raw
    ) -> int:
        self._take(signs)
        lost: int = self._library.randes_retrieve(
            address(codes), bits, self._signs_at, base, kind, address(out)
        )
        return lost
