"""What compiled code makes of samples is what NumPy makes of them, on every processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from randes_cli.core.compiled.kernel import available
from randes_cli.core.compiled.sample import Lies, moments, put_on_grid, read_spreads, signs_of
from randes_cli.core.signs import SignRun, SignWindow, Window, sign_bits
from randes_cli.specs import Signs

if not available():
    pytest.skip("not compiled", allow_module_level=True)

ROWS, COLS = 24, 37
#: What two-sided signs see of it.
VIEW = (12, 74)


def test_squares_are_summed_in_the_order_of_numpy(level: int, tmp_path: Path) -> None:
    random, path = np.random.default_rng(level), tmp_path / "data"
    for size in [*range(1, 20), 127, 128, 129, 136, 255, 256, 257, 1000, 4095, 16384, 65536]:
        numbers = random.standard_t(2, (3, size)).astype(np.float32)
        path.write_bytes(numbers.tobytes())
        with path.open("rb") as file:
            base, *others = [Lies((file.fileno(), 4 * size * n), "F32") for n in range(3)]
            found = read_spreads([(0, size)], base, others)
        assert found is not None
        deltas = numbers[1:] - numbers[0]
        squares = [np.square(delta, dtype=np.float64).sum() for delta in deltas]
        assert found[0].tolist() == squares, size
        assert found[1].tolist() == np.abs(deltas).max(axis=1).tolist()


def test_what_is_not_finite_or_ends_early_is_left_to_others(level: int, tmp_path: Path) -> None:
    path, numbers = tmp_path / "data", np.ones(64, np.float32)
    numbers[40] = np.inf
    path.write_bytes(numbers.tobytes())
    with path.open("rb") as file:
        zero, lies = Lies(None, "F32"), Lies((file.fileno(), 0), "F32")
        assert read_spreads([(0, 40)], zero, [lies]) is not None, level
        assert read_spreads([(0, 41)], zero, [lies]) is None
        assert read_spreads([(60, 5)], zero, [lies]) is None
        assert read_spreads([(0, 40)], zero, [lies._replace(dtype="F64")]) is None


@pytest.mark.parametrize("scale", [1e-45, 3e-39, 1e-3, 1.0, 3e38])
def test_deltas_on_their_grid_and_their_moments_are_numpys(scale: float, level: int) -> None:
    random = np.random.default_rng(level)
    delta = (scale * random.uniform(-1, 1, 4099)).astype(np.float32)
    out = np.empty(delta.size)
    unit = put_on_grid(delta, 18, out)
    exponent = int(np.frexp(np.float64(np.abs(delta).max()))[1]) - 18
    assert unit == np.ldexp(1.0, exponent)
    units = np.rint(delta.astype(np.float64) * np.ldexp(1.0, -exponent))
    assert out.tolist() == units.tolist()
    coarse = [round(unit / 64) for unit in units.tolist()]
    slow = np.abs(units).sum(), np.square(units).sum(), sum(one**4 for one in coarse)
    assert moments(out, 6) == list(map(int, slow))


def test_a_delta_of_zeros_has_a_grid_too(level: int) -> None:
    out = np.ones(100)
    assert put_on_grid(np.zeros(100, np.float32), 18, out) == 2.0**-18, level
    assert not out.any()
    assert moments(out, 6) == [0, 0, 0]


@pytest.mark.parametrize("signs", list(Signs))
def test_signs_of_runs_are_those_of_their_windows(signs: Signs, level: int) -> None:
    bits = sign_bits(signs, 7, "t", *(VIEW if signs is Signs.two_sided else (ROWS, COLS)))
    places = [(0, 3 * COLS), (5 * COLS + 2, 18), (20 * COLS, 4 * COLS)]
    slow = [window(signs, bits, first, count).values().reshape(-1) for first, count in places]
    found = signs_of(signs, bits, COLS, VIEW, places)
    assert found is not None
    assert found.tolist() == np.concatenate(slow).tolist(), level


def window(signs: Signs, bits: bytes, first: int, count: int) -> Window:
    """The signs of whole rows, or of a part of one."""
    if signs is Signs.two_sided:
        return SignRun(bits, VIEW, first, count, 1.0)
    row, col = divmod(first, COLS)
    rows = row, row + max(1, count // COLS)
    return SignWindow(signs, bits, rows, (col, col + min(count, COLS)), 1.0)
