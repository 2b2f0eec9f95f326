"""Stored dtypes against torch's conversions, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from randes_cli.core.convert import BEYOND, LARGEST, narrow, numpy_dtype, widen
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NARROW = ["F16", "BF16", "F8_E4M3", "F8_E5M2"]


def every_pattern(dtype: str) -> np.ndarray:
    """All 65536 or 256 bit patterns of a dtype, as bytes."""
    kind = np.uint16 if ITEM_SIZE[dtype] == 2 else np.uint8
    return np.arange(2 ** (8 * ITEM_SIZE[dtype]), dtype=np.uint32).astype(kind).view(np.uint8)


def widened(raw: np.ndarray, dtype: str) -> np.ndarray:
    out = np.empty(len(raw) // ITEM_SIZE[dtype], np.float32)
    widen(raw, dtype, out)
    return out


def narrowed(values: np.ndarray, dtype: str) -> tuple[np.ndarray, int]:
    out = np.empty(values.size * ITEM_SIZE[dtype], np.uint8)
    count = narrow(values.copy(), dtype, out)
    return out, count


def by_torch(values: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of torch's conversion, which rounds half to even."""
    return torch.from_numpy(values).to(TORCH[dtype]).view(torch.uint8).numpy()


@pytest.mark.parametrize("dtype", NARROW)
def test_every_bit_pattern_widens_as_torch_widens_it(dtype: str) -> None:
    raw = every_pattern(dtype)
    expected = torch.from_numpy(raw).view(TORCH[dtype]).float().numpy()
    assert np.array_equal(widened(raw, dtype), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", NARROW)
def test_every_finite_bit_pattern_returns_from_float32_as_it_was(dtype: str) -> None:
    raw = every_pattern(dtype)
    finite = np.isfinite(widened(raw, dtype))
    kept = raw.reshape(-1, ITEM_SIZE[dtype])[finite].reshape(-1)
    made, count = narrowed(widened(kept, dtype), dtype)
    assert np.array_equal(made, kept)
    assert count == 0


@pytest.mark.parametrize("dtype", NARROW)
def test_halves_between_neighbours_round_to_even_as_torch_rounds_them(dtype: str) -> None:
    values = widened(every_pattern(dtype), dtype)
    values = np.unique(values[np.isfinite(values)]).astype(np.float64)
    halves = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    for near in (halves, np.nextafter(halves, np.float32(np.inf)), np.nextafter(halves, -halves)):
        made, _ = narrowed(near, dtype)
        assert np.array_equal(made, by_torch(near, dtype))


@pytest.mark.parametrize("dtype", NARROW)
def test_random_bits_in_range_narrow_as_torch_narrows_them(dtype: str) -> None:
    bits = np.random.default_rng(5).integers(0, 2**32, 400_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.abs(values) <= LARGEST[dtype]]
    values = np.concatenate([values, np.float32(LARGEST[dtype]) * np.linspace(-1, 1, 9999)])
    values = values.astype(np.float32)
    made, count = narrowed(values, dtype)
    assert np.array_equal(made, by_torch(values, dtype))
    assert count == 0


@pytest.mark.parametrize("dtype", NARROW)
def test_values_beyond_the_range_become_the_largest_and_are_counted(dtype: str) -> None:
    largest = LARGEST[dtype]
    values = np.array([largest, -largest, 3.4e38, -3.4e38, 1.0], np.float32)
    made, count = narrowed(values, dtype)
    assert widened(made, dtype).tolist() == [largest, -largest, largest, -largest, 1.0]
    assert count == 2


@pytest.mark.parametrize("dtype", NARROW)
def test_saturation_begins_where_rounding_leaves_the_range(dtype: str) -> None:
    largest = np.float32(LARGEST[dtype])
    values = np.linspace(float(largest) * 0.999, min(float(largest) * 1.1, 3.4028e38), 2001)
    found, count = narrowed(values.astype(np.float32), dtype)
    lost = values.astype(np.float32) >= BEYOND[dtype]
    kept = np.where(lost, largest, values).astype(np.float32)
    assert np.array_equal(found, by_torch(kept, dtype))
    assert count == int(lost.sum()) > 0
    first = np.array([BEYOND[dtype]], np.float32)
    for beyond, last in ((first, largest), (-first, -largest)):
        assert narrowed(np.nextafter(beyond, last), dtype)[1] == 0
        made, count = narrowed(beyond, dtype)
        assert (widened(made, dtype), count) == (last, 1)


@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_the_largest_numbers_are_those_of_torch(dtype: str) -> None:
    kind = torch.float32 if dtype == "F64" else TORCH[dtype]
    assert LARGEST[dtype] == torch.finfo(kind).max


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=30))
def test_float32_and_float64_keep_every_float32(values: list[float]) -> None:
    given_values = np.array(values, np.float32)
    for dtype in ("F32", "F64"):
        made, count = narrowed(given_values, dtype)
        assert np.array_equal(widened(made, dtype), given_values)
        assert count == 0


def test_float64_widens_to_the_nearest_float32() -> None:
    raw = np.array([1 + 2.0**-24, 1e300, 1 / 3]).view(np.uint8)
    assert widened(raw, "F64").tolist() == [1.0, np.inf, np.float32(1 / 3)]


def test_an_empty_array_narrows_to_no_bytes() -> None:
    for dtype in FLOAT_DTYPES:
        made, count = narrowed(np.empty(0, np.float32), dtype)
        assert made.size == 0
        assert count == 0


@pytest.mark.parametrize("dtype", sorted(set(ITEM_SIZE) - {"C64"}))
def test_item_sizes_are_those_of_safetensors(dtype: str) -> None:
    header = f'{{"x":{{"dtype":"{dtype}","shape":[3],"data_offsets":[0,{3 * ITEM_SIZE[dtype]}]}}}}'
    file = len(header).to_bytes(8, "little") + header.encode() + bytes(3 * ITEM_SIZE[dtype])
    tensor = load(file)["x"]
    assert save({"x": tensor}).count(f'"{dtype}"'.encode()) == 1
    assert numpy_dtype(dtype).itemsize == tensor.element_size()
