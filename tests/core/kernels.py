"""The kernels, and slow oracles of what they compute, with Python's integers and fractions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from randes_cli.core.compiled.kernel import FusedKernel, available
from randes_cli.core.convert import narrow, widen
from randes_cli.core.energy import Energy
from randes_cli.core.kernel import (
    Added,
    Kernel,
    NumpyKernel,
)
from randes_cli.core.signs import SignRun, SignWindow, Window, sign_bits
from randes_cli.core.torch_kernel import TorchKernel
from randes_cli.specs import ITEM_SIZE, Signs

Maker = Callable[[int, int], Kernel]

KERNELS: dict[str, Maker] = {
    "numpy": NumpyKernel,
    **({"fused": FusedKernel} if available() else {}),
    "torch": lambda elements, layers: TorchKernel("cpu", elements, layers),
}
both = pytest.mark.parametrize("kind", sorted(KERNELS))


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of float32 values in a dtype."""
    out = np.empty(values.size * ITEM_SIZE[dtype], np.uint8)
    narrow(values.astype(np.float32).reshape(-1), dtype, out)
    return out


def values_of(raw: np.ndarray, dtype: str) -> np.ndarray:
    out = np.empty(len(raw) // ITEM_SIZE[dtype], np.float32)
    widen(raw, dtype, out)
    return out


def slow_energy(delta: np.ndarray, exponent: int) -> Energy:
    """Σ q², Σ q·p and Σ p² with Python's fractions."""
    squares = crossed = rests = 0
    for value in delta.tolist():
        steps = Fraction(value) / Fraction(2) ** exponent
        units = round(steps)
        parts = round((steps - units) * 2**16)
        squares, crossed, rests = (
            squares + units**2,
            crossed + units * parts,
            rests + parts**2,
        )
    return Energy(squares, crossed, rests)


def superpose(
    kernel: Kernel,
    base: np.ndarray,
    base_dtype: str,
    tasks: list[np.ndarray],
    dtype: str,
    signs: list[Window],
    bits: int = 16,
) -> tuple[np.ndarray, int, list[Added]]:
    """One strip through a kernel: its stored bytes, its peak, what each task added."""
    kernel.set_base(0, base, base_dtype, len(base) // ITEM_SIZE[base_dtype])
    kernel.begin(len(base) // ITEM_SIZE[base_dtype], None, bits)
    added = []
    for task, pattern in zip(tasks, signs, strict=True):
        raw = kernel.buffer(len(task))
        raw[:] = task
        added.append(kernel.add(0, raw, dtype, pattern))
    codes, peak = kernel.finish(bits)
    return codes.copy(), peak, added


def window(signs: Signs, seed: int, rows: int, cols: int, scale: float) -> Window:
    bits = sign_bits(signs, seed, "w", rows, cols)
    if signs is Signs.two_sided:
        return SignRun(bits, (rows, cols), 0, rows * cols, scale)
    return SignWindow(signs, bits, (0, rows), (0, cols), scale)


def windows(signs: Signs, count: int, rows: int, cols: int, scale: float) -> list[Window]:
    return [window(signs, seed, rows, cols, scale) for seed in range(count)]


def plain(rows: int, cols: int, scale: float = 1.0) -> SignWindow:
    return SignWindow(Signs.none, b"", (0, rows), (0, cols), scale)
