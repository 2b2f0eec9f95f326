"""One strip of a superposition, in NumPy: the equations of the method on arrays.

`torch_kernel` does the same on a device. Both give equal bytes, for every step is exact:
differences and products by powers of two are single float32 operations, rounding is to the
nearest even integer, and everything after it is integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import numpy as np

from randes_cli.core.arrays import F32, I32, Raw
from randes_cli.core.convert import NEVER_BEYOND, narrow, widen
from randes_cli.core.energy import PART_BITS, Energy
from randes_cli.core.signs import Window
from randes_cli.specs import ITEM_SIZE

if TYPE_CHECKING:
    from randes_cli.core.compiled.back import Backer
    from randes_cli.core.compiled.run import Runner

#: Floats of the scratch memory beyond a strip's: fused.c writes signs by eights.
SPARE = 16
#: Beyond it a rounded delta counts as overflow, whatever the sum.
GRID_LIMIT = 2**15 - 1
#: Elements of one block of a sum of squares: small, so that float32 sums stay exact.
_BLOCK = 512
#: Elements of one block of sums that need float64.
_WIDE = 2**13
#: Below it float32 holds every integer: a sum that stays below was never rounded.
_EXACT = 2.0**24
#: Deltas of up to GRID_LIMIT that a float32 sum takes before it could pass _EXACT.
_MOST_ADDED = 500


class Overflow(Exception):
    """A rounded delta is larger than the grid holds; `peak` is its magnitude in steps."""

    def __init__(self, peak: int) -> None:
        super().__init__(peak)
        self.peak = peak


class NonFinite(Exception):
    """A value of the base or of the task is NaN or infinite."""


class Kernel(Protocol):
    """What a strip job needs of an arithmetic backend. Raw arrays are bytes, as stored.

    Attributes:
        elements: those of the longest strip that it has room for.
        runner, backer: what does whole chunks, files included, where that is compiled.
    """

    elements: int
    runner: Runner | None = None
    backer: Backer | None = None

    def buffer(self, nbytes: int) -> Raw:
        """Host memory to read the next tensor's strip into; valid until the next call."""

    def set_base(self, layer: int, raw: Raw | None, dtype: str, elements: int) -> None:
        """Take the base's strip of one layer (None: zeros)."""

    def changed(self, layer: int, raw: Raw, dtype: str) -> float:
        """Largest |Θ_i − Θ_0| of the strip. Raises NonFinite."""

    def begin(self, elements: int, codes: Raw | None, bits: int) -> None:
        """Start a superposition strip at zero, or at stored integers."""

    def add(self, layer: int, raw: Raw, dtype: str, signs: Window) -> Added:
        """Add O_i round((Θ_i − Θ_0) / step); `signs` is ±1/step. Raises Overflow, NonFinite."""

    def finish(self, bits: int) -> tuple[Raw, int]:
        """The strip's integers as stored, and their largest magnitude (valid up to the limit)."""

    def retrieve(self, codes: Raw, bits: int, signs: Window, dtype: str, out: Raw) -> int:
        """Θ_0 + signs · codes as `dtype` into `out`; `signs` is ±λ·step. Returns saturations.

        With 32 `bits` the codes are float32 numbers of steps, of a sealed superposition.
        """

    def retrieve_onto(self, codes: Raw, bits: int, signs: Window, out: Raw) -> int:
        """Like `retrieve` in float32, where `out` holds Θ_0. Returns saturations."""


class Added(NamedTuple):
    """What one strip of one task's delta was: its sums, and whether any element differs."""

    energy: Energy
    changed: bool


def energy_of(units: F32, steps: F32, sums: F32) -> Energy | None:
    """The exact sums over `steps` and over `units`, which are `steps` rounded to integers.

    Leaves in `steps` what rounding left, in parts. `sums` has room for a float per _BLOCK
    elements. None where a unit is beyond GRID_LIMIT, or not finite.
    """
    squares = sum_of_squares(units, sums)
    if squares is None:
        return None
    np.subtract(steps, units, out=steps)
    np.multiply(steps, np.float32(2**PART_BITS), out=steps)
    np.rint(steps, out=steps)
    crossed = rests = 0
    for start in range(0, len(steps), _WIDE):
        parts = steps[start : start + _WIDE].astype(np.float64)
        crossed += int(parts @ units[start : start + _WIDE].astype(np.float64))
        rests += int(parts @ parts)
    return Energy(squares, crossed, rests)


def delta_energy(delta: F32, exponent: int) -> Energy:
    """The sums over a delta whose magnitudes are within GRID_LIMIT steps of 2^exponent."""
    steps = delta * np.float32(2.0**-exponent)
    found = energy_of(np.rint(steps), steps, np.empty(len(steps) // _BLOCK, np.float32))
    if found is None:
        raise Overflow(int(np.abs(delta).max() * 2.0**-exponent))
    return found


def sum_of_squares(units: F32, sums: F32) -> int | None:
    """Σ units² as an exact integer, for integer-valued float32 `units`; see `energy_of`.

    Blocks are summed in float32: a total below 2^24 proves that no partial sum was rounded and
    that all units are small. The few blocks that pass it are looked at again, in float64.
    """
    whole = len(units) // _BLOCK * _BLOCK
    blocks = units[:whole].reshape(-1, _BLOCK)
    sums = sums[: len(blocks)]
    np.matmul(blocks[:, None, :], blocks[:, :, None], out=sums[:, None, None])
    total = _wide_squares(units[whole:])
    heavy = ~(sums < _EXACT)
    if total is not None and heavy.any():
        more = _wide_squares(blocks[heavy])
        total = None if more is None else total + more
        sums[heavy] = 0
    return None if total is None else total + int(sums.sum(dtype=np.float64))


def _wide_squares(units: F32) -> int | None:
    if units.size and not float(np.abs(units).max()) <= GRID_LIMIT:
        return None
    wide = units.astype(np.float64).reshape(-1)
    return int(np.dot(wide, wide))


class NumpyKernel(Kernel):
    """The CPU backend: buffers for one strip of up to `elements`, of up to `layers` layers."""

    def __init__(self, elements: int, layers: int) -> None:
        self.elements = elements
        self._raw = np.empty(8 * elements, np.uint8)
        self._base = np.empty((layers, elements), np.float32)
        self._delta = np.empty(elements, np.float32)
        self._scratch = np.empty(elements + SPARE, np.float32)
        self._sum = np.empty(elements, np.float32)
        self._codes = np.empty(2 * elements, np.uint8)
        self._size = 0
        self._added = 0
        #: Integers that a long sum was emptied into.
        self._emptied: I32 | None = None

    def buffer(self, nbytes: int) -> Raw:
        return self._raw[:nbytes]

    def set_base(self, layer: int, raw: Raw | None, dtype: str, elements: int) -> None:
        if raw is None:
            self._base[layer, :elements] = 0
        else:
            widen(raw, dtype, self._base[layer, :elements])

    def _difference(self, layer: int, raw: Raw, dtype: str) -> F32:
        size = len(raw) // ITEM_SIZE[dtype]
        delta, base = self._delta[:size], self._base[layer, :size]
        with np.errstate(invalid="ignore", over="ignore"):
            if dtype == "F32":
                return np.subtract(raw.view(np.float32), base, out=delta)
            widen(raw, dtype, delta)
            return np.subtract(delta, base, out=delta)

    def changed(self, layer: int, raw: Raw, dtype: str) -> float:
        delta = self._difference(layer, raw, dtype)
        largest = max(float(delta.max()), -float(delta.min())) if delta.size else 0.0
        if not largest < np.inf:
            raise NonFinite
        return largest

    def begin(self, elements: int, codes: Raw | None, bits: int) -> None:
        self._size, self._added, self._emptied = elements, 0, None
        if codes is None:
            self._sum[:elements] = 0
        else:
            np.copyto(self._sum[:elements], codes.view(code_dtype(bits)))

    def add(self, layer: int, raw: Raw, dtype: str, signs: Window) -> Added:
        steps = self._difference(layer, raw, dtype)
        size = steps.size
        if not size:
            return Added(Energy(), False)
        units, sums = self._scratch[:size], self._codes[: 4 * (size // _BLOCK)].view(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            signs.multiply(steps)
            energy = energy_of(np.rint(steps, out=units), steps, sums)
        if energy is None:
            self._refuse(layer, raw, dtype, step=1 / abs(signs.scale))
        if self._added == _MOST_ADDED:
            self._empty()
        self._added += 1
        np.add(self._sum[:size], units, out=self._sum[:size])
        changed = any(energy) or bool(self._difference(layer, raw, dtype).any())
        return Added(energy, changed)

    def _empty(self) -> None:
        """Move the sum into integers, before float32 could round it."""
        part = self._sum[: self._size]
        if self._emptied is None:
            self._emptied = np.zeros(self._size, np.int32)
        self._emptied += part.astype(np.int32)
        part[:] = 0
        self._added = 0

    def _refuse(self, layer: int, raw: Raw, dtype: str, *, step: float) -> NoReturn:
        """Say why a strip does not fit its grid: not finite, or how many steps it spans."""
        raise Overflow(int(self.changed(layer, raw, dtype) / step))

    def finish(self, bits: int) -> tuple[Raw, int]:
        if self._emptied is not None:
            self._empty()
        total = self._sum[: self._size] if self._emptied is None else self._emptied
        peak = max(int(total.max()), -int(total.min())) if total.size else 0
        codes = self._codes.view(code_dtype(bits))[: self._size]
        if peak <= GRID_LIMIT:
            np.copyto(codes, total, casting="unsafe")
        return codes.view(np.uint8), peak

    def retrieve(self, codes: Raw, bits: int, signs: Window, dtype: str, out: Raw) -> int:
        delta = self._signed(codes, bits, signs)
        with np.errstate(over="ignore"):
            np.add(delta, self._base[0, : delta.size], out=delta)
        return narrow(delta, dtype, out, self._scratch)

    def retrieve_onto(self, codes: Raw, bits: int, signs: Window, out: Raw) -> int:
        values, delta = out.view(np.float32), self._signed(codes, bits, signs)
        if abs(signs.scale) < NEVER_BEYOND:
            np.add(values, delta, out=values)
            return 0
        with np.errstate(over="ignore"):
            np.add(delta, values, out=delta)
        return narrow(delta, "F32", out)

    def _signed(self, codes: Raw, bits: int, signs: Window) -> F32:
        stored = codes.view(code_dtype(bits))
        delta = self._delta[: stored.size]
        np.copyto(delta, stored)
        with np.errstate(over="ignore"):
            signs.multiply(delta)
        return delta


#: The type of numbers of steps, by bits: 32 are what a sealed superposition decodes to.
_CODE_DTYPES: Mapping[int, Any] = {32: np.float32, 16: np.int16, 8: np.int8}


def code_dtype(bits: int) -> Any:
    """The NumPy type that a superposition of `bits` is held in."""
    return _CODE_DTYPES[bits]
