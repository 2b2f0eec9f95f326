"""Tensors that the compiled swap writes have the bits of NumPy's, past the caches and in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from randes_cli.core.arrays import F32, Raw, address
from randes_cli.core.codes import decode, multiply_scales, packed_bytes
from randes_cli.core.compiled import swap as fused_swap
from randes_cli.core.compiled.kernel import available, processor
from randes_cli.core.compiled.swap import Source, Sum, Swap
from randes_cli.core.convert import narrow, widen
from randes_cli.core.signs import many_signs, sign_bytes
from randes_cli.specs import ITEM_SIZE, Signs

if not available():
    pytest.skip("not compiled", allow_module_level=True)

_FREE = 64
_SHAPES = [(1, 1), (1, 2000), (3, 700), (40, 768), (33, 70), (2, 9001), (900, 3), (7, 130)]
_DTYPES = ["BF16", "F16", "F32"]


class Tensor(NamedTuple):
    """A source, what it is made of and where it lies in memory, and what is to be written."""

    source: Source
    out: Raw
    place: int
    wanted: Raw
    kept: list[object]


def placed(random: np.random.Generator, size: int, step: int) -> Raw:
    """Memory that begins anywhere, in whole elements."""
    start = int(random.integers(0, 40)) * step
    return np.zeros(start + size + _FREE, np.uint8)[start : start + size]


def stored(random: np.random.Generator, values: F32, dtype: str) -> Raw:
    made = placed(random, len(values) * ITEM_SIZE[dtype], ITEM_SIZE[dtype])
    narrow(values.copy(), dtype, made)
    return made


def units(
    random: np.random.Generator, view: tuple[int, int], kind: str
) -> tuple[Raw, int, F32, tuple[F32, F32] | None]:
    """Integers or codes as they are stored, their bits and what they say, and scales."""
    elements, bits = view[0] * view[1], int(kind.lstrip("i"))
    if kind.startswith("i"):
        dtype = np.int8 if bits == 8 else np.int16
        made = placed(random, elements * bits // 8, bits // 8)
        made[:] = random.integers(0, 256, made.size)
        return made, bits, made.view(dtype).astype(np.float32), None
    made = placed(random, packed_bytes(elements, bits), 1)
    made[:] = random.integers(0, 256, made.size)
    decoded = np.empty(-(-elements // 8) * 8, np.float32)
    decode(made, bits, decoded)
    values = decoded[:elements]
    rows, columns = (random.lognormal(size=n).astype(np.float32) for n in view)
    multiply_scales(values, 0, rows, columns[None])
    return made, bits, values, (rows, columns[None])


def tensor(random: np.random.Generator) -> Tensor:
    """A tensor of any kind, some of them the base's, or some of its elements."""
    view = _SHAPES[random.integers(len(_SHAPES))]
    elements, signs = view[0] * view[1], list(Signs)[random.integers(len(Signs))]
    cols = view[1] if random.random() < 0.8 else elements
    base_dtype = str(random.choice(_DTYPES))
    bare = random.random() < 0.2
    dtype = base_dtype if bare or random.random() < 0.7 else str(random.choice(_DTYPES))
    scale = float(np.float32(random.choice([2.0**-9, -0.3, 3e-7, 1e-42, 2.0**100, 1e36])))
    kind = str(random.choice(["i16", "i8", "8", "4", "3", "2", "1"]))
    flips = random.bytes(sign_bytes(signs, *(view if signs is Signs.two_sided else (1, elements))))
    raw, bits, values, scales = units(random, view, kind)
    base = stored(random, random.normal(size=elements).astype(np.float32), base_dtype)
    wide = np.empty(elements, np.float32)
    widen(base, base_dtype, wide)
    shape = elements // cols, cols
    turned = many_signs(signs, np.frombuffer(flips, np.uint8)[None], shape, view)
    with np.errstate(over="ignore"):
        made = wide if bare else wide + values * (turned.reshape(-1) * np.float32(scale))
    first, last = (
        sorted(random.integers(0, elements + 1, 2)) if random.random() < 0.3 else (0, elements)
    )
    wanted = np.empty((last - first) * ITEM_SIZE[dtype], np.uint8)
    narrow(made[first:last].copy(), dtype, wanted)
    out = random.integers(0, 256, wanted.size + 2 * _FREE).astype(np.uint8)
    place = int(random.integers(0, _FREE // ITEM_SIZE[dtype])) * ITEM_SIZE[dtype]
    added = None if bare else Sum(address(raw), bits, scales, signs, flips, scale)
    source = Source(int(first), int(last), cols, view, address(base), base_dtype, dtype, added)
    return Tensor(source, out, place, wanted, [raw, base])


def swap_many(random: np.random.Generator, count: int) -> None:
    """Swap and compare, bytes beside the tensors too."""
    tensors = [tensor(random) for _ in range(count)]
    before = [made.out.copy() for made in tensors]
    swap = Swap([made.source for made in tensors])
    places = [address(made.out) + made.place for made in tensors]
    for threads in (1, 3):
        swap.write(places, threads=threads)
        for made, old in zip(tensors, before, strict=True):
            old[made.place : made.place + made.wanted.size] = made.wanted
            assert np.array_equal(made.out, old), made.source


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("level", [1, 3, 4])
def test_random_tensors_are_swapped_as_numpy_adds_them(
    level: int, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_swap, "_CACHED", -1 if streamed else 2**30)
    monkeypatch.setattr(fused_swap, "_PARTS", (1000, 1000))
    processor(level)
    try:
        swap_many(np.random.default_rng(level), 60)
    finally:
        processor(99)
