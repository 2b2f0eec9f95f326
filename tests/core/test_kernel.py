"""Strip arithmetic against a slow oracle of Python integers; torch's equals NumPy's bytes."""

from __future__ import annotations

import shutil
import sysconfig
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from randes_cli.core.compiled.kernel import available, processor
from randes_cli.core.kernel import Added, Overflow
from randes_cli.core.signs import SignRun, Window, sign_bits
from randes_cli.specs import Signs
from tests.core.kernels import (
    KERNELS,
    both,
    plain,
    slow_energy,
    stored,
    superpose,
    values_of,
    windows,
)


def rounded(delta: float, exponent: int) -> int:
    """round(delta / 2^exponent), half to even, in exact arithmetic."""
    return round(Fraction(delta) / Fraction(2) ** exponent)


def slow_sum(
    base: np.ndarray, tasks: list[np.ndarray], patterns: list[Window], exponent: int
) -> list[int]:
    """Σ_i ± round((Θ_i − Θ_0) / step), one element at a time, with Python's integers."""
    made = []
    for position in range(base.size):
        total = 0
        for task, pattern in zip(tasks, patterns, strict=True):
            delta = float(np.float32(task[position]) - np.float32(base[position]))
            total += int(pattern.values().reshape(-1)[position]) * rounded(delta, exponent)
        made.append(total)
    return made


@both
@pytest.mark.parametrize("signs", list(Signs))
@pytest.mark.parametrize(
    ("base_dtype", "dtype"),
    [("F32", "F32"), ("BF16", "F32"), ("F16", "BF16"), ("F8_E4M3", "F8_E5M2"), ("F64", "F64")],
)
def test_a_strip_is_the_exact_integer_sum_of_the_rounded_deltas(
    kind: str, signs: Signs, base_dtype: str, dtype: str
) -> None:
    rows, cols, exponent = 5, 7, -9
    source = np.random.default_rng(3)
    base = stored(source.normal(size=35), base_dtype)
    near = values_of(base, base_dtype)
    tasks = [stored(near + source.normal(size=35) * 0.05, dtype) for _ in range(3)]
    codes, peak, added = superpose(
        KERNELS[kind](64, 1),
        base,
        base_dtype,
        tasks,
        dtype,
        windows(signs, 3, rows, cols, 2.0**-exponent),
    )
    bare = windows(signs, 3, rows, cols, 1.0)
    deltas = [values_of(task, dtype) for task in tasks]
    assert codes.view(np.int16).tolist() == slow_sum(near, deltas, bare, exponent)
    assert peak == max(map(abs, slow_sum(near, deltas, bare, exponent)))
    for task, found in zip(deltas, added, strict=True):
        assert found == Added(slow_energy(task - near, exponent), bool((task != near).any()))


@given(
    st.lists(st.floats(-32000, 32000, width=32), min_size=1, max_size=40), st.integers(-126, 100)
)
def test_both_kernels_round_halves_to_even_whatever_the_step(
    units: list[float], exponent: int
) -> None:
    task = np.array(units, np.float32) * np.float32(2.0**exponent)
    raw, base = task.view(np.uint8), np.zeros(len(units), np.float32).view(np.uint8)
    signs = windows(Signs.none, 1, 1, len(units), 2.0**-exponent)
    expected = [rounded(float(value), exponent) for value in task]
    for maker in KERNELS.values():
        codes, _, _ = superpose(maker(64, 1), base, "F32", [raw], "F32", signs)
        assert codes.view(np.int16).tolist() == expected


@both
def test_a_half_is_rounded_to_the_even_integer(kind: str) -> None:
    task = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 32766.5], np.float32)
    signs = windows(Signs.none, 1, 1, 7, 1.0)
    codes, _, _ = superpose(
        KERNELS[kind](8, 1), np.zeros(28, np.uint8), "F32", [task.view(np.uint8)], "F32", signs
    )
    assert codes.view(np.int16).tolist() == [0, 2, 2, 0, -2, -2, 32766]


@both
@pytest.mark.parametrize("far", [0.0, 2047.5, -2048.5, 2048.0, -32766.5])
def test_sums_over_halves_are_exact_in_rows_of_many(kind: str, far: float) -> None:
    task = np.append(np.arange(-47, 48, dtype=np.float32) / 2, np.float32(far))
    signs = windows(Signs.column, 1, 1, 96, 1.0)
    codes, _, added = superpose(
        KERNELS[kind](96, 1), np.zeros(384, np.uint8), "F32", [task.view(np.uint8)], "F32", signs
    )
    assert codes.view(np.int16).tolist() == np.rint(task * signs[0].values()[0]).tolist()
    assert added[0].energy == slow_energy(task * signs[0].values()[0], 0)


@given(st.integers(1, 9), st.integers(1, 12), st.data(), st.sampled_from([16, 8]))
def test_all_kernels_agree_on_runs_that_begin_and_end_inside_a_row(
    rows: int, cols: int, data: st.DataObject, bits: int
) -> None:
    first = data.draw(st.integers(0, rows * cols - 1))
    count = data.draw(st.integers(1, rows * cols - first))
    flips = sign_bits(Signs.two_sided, 5, "w", rows, cols)
    chance = np.random.default_rng(first)
    task = chance.normal(size=count).astype(np.float32) * 20
    base, out = np.zeros(count, np.float32), np.empty(4 * count, np.uint8)
    run = SignRun(flips, (rows, cols), first, count, 1.0)
    units = np.rint(task * run.values()[0])
    energy = slow_energy(task, 0)
    for maker in KERNELS.values():
        kernel = maker(count, 1)
        codes, _, added = superpose(
            kernel, base.view(np.uint8), "F32", [task.view(np.uint8)], "F32", [run], bits
        )
        stored_units = codes.view(np.int16 if bits == 16 else np.int8)
        assert stored_units.tolist() == units.tolist()
        assert added[0].energy == energy
        kernel.retrieve(codes, bits, run, "F32", out)
        assert out.view(np.float32).tolist() == (units * run.values()[0]).tolist()


@both
@pytest.mark.parametrize("bits", [16, 8])
def test_adding_to_stored_integers_and_subtracting_again_restores_them(
    kind: str, bits: int
) -> None:
    source = np.random.default_rng(1)
    old = source.integers(-50, 50, 24).astype(np.int16 if bits == 16 else np.int8)
    task = source.normal(size=24).astype(np.float32)
    kernel = KERNELS[kind](32, 1)
    kernel.set_base(0, None, "F32", 24)
    codes = old.view(np.uint8)
    for scale in (16.0, -16.0):
        kernel.begin(24, codes, bits)
        pattern = windows(Signs.hankel, 1, 4, 6, scale)[0]
        kernel.add(0, task.view(np.uint8), "F32", pattern)
        codes = kernel.finish(bits)[0].copy()
    assert np.array_equal(codes, old.view(np.uint8))


@both
def test_a_shorter_task_adds_to_the_first_rows_alone(kind: str) -> None:
    kernel = KERNELS[kind](16, 1)
    kernel.set_base(0, None, "F32", 12)
    kernel.begin(12, None, 16)
    kernel.add(0, np.full(12, 3, np.float32).view(np.uint8), "F32", plain(3, 4))
    kernel.add(0, np.full(8, 2, np.float32).view(np.uint8), "F32", plain(2, 4))
    codes, peak = kernel.finish(16)
    assert codes.view(np.int16).tolist() == [5] * 8 + [3] * 4
    assert peak == 5


@both
@pytest.mark.parametrize("units", [32768.0, -32768.0, 2.0**22, -(2.0**22), 1e30, -1e30])
@pytest.mark.parametrize("others", [0.0, 5.0])
def test_a_delta_beyond_the_grid_raises_with_its_size_in_steps(
    kind: str, units: float, others: float
) -> None:
    task = np.full(35, others, np.float32) / 4
    task[1] = units / 4
    kernel = KERNELS[kind](36, 1)
    kernel.set_base(0, None, "F32", 35)
    kernel.begin(35, None, 16)
    with pytest.raises(Overflow) as caught:
        kernel.add(0, task.view(np.uint8), "F32", plain(1, 35, 4.0))
    assert caught.value.peak == int(abs(np.float32(units)))
    codes, peak = kernel.finish(16)  # nothing was added
    assert peak == 0 and not codes.any()


@both
@pytest.mark.parametrize("units", [-3 * 2.0**23, -3 * 2.0**23 - 2, 3 * 2.0**23, -1.5 * 2**23])
def test_deltas_whose_rounding_wraps_around_are_overflows_too(kind: str, units: float) -> None:
    task = np.array([1.0, units, 2.0], np.float32).view(np.uint8)
    kernel = KERNELS[kind](4, 1)
    kernel.set_base(0, None, "F32", 3)
    kernel.begin(3, None, 16)
    with pytest.raises(Overflow):
        kernel.add(0, task, "F32", plain(1, 3))


@both
def test_the_largest_delta_of_the_grid_is_no_overflow(kind: str) -> None:
    kernel, base = KERNELS[kind](4, 1), np.zeros(8, np.uint8)
    for units in ([1.0, -2.0], [32767.0, -32767.0]):
        task = np.array(units, np.float32).view(np.uint8)
        codes, peak, _ = superpose(kernel, base, "F32", [task], "F32", [plain(1, 2)])
        assert (codes.view(np.int16).tolist(), peak) == (units, max(map(abs, units)))


@both
def test_a_sum_of_a_thousand_of_the_largest_deltas_is_exact(kind: str) -> None:
    task = np.array([32767.0, -1.0], np.float32).view(np.uint8)
    kernel = KERNELS[kind](4, 1)
    kernel.set_base(0, None, "F32", 2)
    kernel.begin(2, None, 16)
    for _ in range(1001):
        kernel.add(0, task, "F32", plain(1, 2))
    assert kernel.finish(16)[1] == 1001 * 32767
    for _ in range(1000):
        kernel.add(0, task, "F32", plain(1, 2, -1.0))
    codes, peak = kernel.finish(16)
    assert (codes.view(np.int16).tolist(), peak) == ([32767, -1], 32767)


@both
@pytest.mark.parametrize("turn", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("steps", [2046.5, -2048.5, 2047.4999, 4095.49, -6143.49, 0.5, 1.5])
def test_sums_of_many_large_products_are_exact(kind: str, steps: float, turn: float) -> None:
    """`turn`: all alike, or (0) every other with the other sign."""
    deltas = np.full(1500, steps, np.float32) * np.float32(turn or 1.0)
    if not turn:
        deltas[::2] *= -1
    kernel, base = KERNELS[kind](1504, 1), np.zeros(6000, np.uint8)
    exact = Added(slow_energy(deltas.astype(np.float64), 0), True)
    for most in (1, 3, 99):  # as the passes are for older processors, and for this one
        processor(most)
        found = superpose(kernel, base, "F32", [deltas.view(np.uint8)], "F32", [plain(1, 1500)])
        assert found[2] == [exact], most


@both
@pytest.mark.parametrize(("value", "seen"), [(0.25, True), (2.0**-20, True), (-0.0, False)])
def test_a_change_below_half_a_step_adds_nothing_but_is_seen(
    kind: str, value: float, seen: bool
) -> None:
    task = np.array([value, 0.0], np.float32).view(np.uint8)
    codes, peak, added = superpose(
        KERNELS[kind](4, 1), np.zeros(8, np.uint8), "F32", [task], "F32", [plain(1, 2)]
    )
    assert (codes.view(np.int16).tolist(), peak, added) == (
        [0, 0],
        0,
        [Added(slow_energy(np.array([value, 0.0]), 0), seen)],
    )


@given(st.data())
def test_torch_gives_the_bytes_of_numpy(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    seed, exponent = data.draw(st.integers(0, 2**30)), data.draw(st.integers(-10, -6))
    dtype = data.draw(st.sampled_from(["F32", "BF16", "F16", "F8_E4M3"]))
    signs = data.draw(st.sampled_from(list(Signs)))
    bits = data.draw(st.sampled_from([16, 8]))
    source = np.random.default_rng(seed)
    base = stored(source.normal(size=rows * cols), dtype)
    tasks = [stored(source.normal(size=rows * cols) * 0.5, dtype) for _ in range(2)]
    patterns = windows(signs, 2, rows, cols, 2.0**-exponent)
    found = []
    for maker in KERNELS.values():
        codes, peak, added = superpose(maker(64, 1), base, dtype, tasks, dtype, patterns, 16)
        found.append((codes.tobytes(), peak, added))
    assert all(one == found[0] for one in found)
    codes = source.integers(-128, 127, rows * cols).astype(np.int8 if bits == 8 else np.int16)
    outputs = []
    for maker in KERNELS.values():
        kernel, out = maker(64, 1), np.empty(len(base), np.uint8)
        kernel.set_base(0, base, dtype, rows * cols)
        lost = kernel.retrieve(codes.view(np.uint8), bits, patterns[0], dtype, out)
        outputs.append((lost, out.tobytes()))
    assert all(one == outputs[0] for one in outputs)


def test_the_fused_passes_are_there_wherever_they_can_be_compiled() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    assert available() or shutil.which(compiler) is None, "pip install -e . compiles them"
