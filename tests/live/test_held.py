"""Products with a superposition as it is held are those with the matrix that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from randes_cli.core.codes import pack_codes
from randes_cli.core.levels import levels
from randes_cli.core.share import Share
from randes_cli.live.weights.codes import unpack
from randes_cli.live.weights.held import Held, made_dense
from tests.live.many import assert_near

BITS = (1, 2, 3, 4, 8, 16)


def matrix(rows: int, columns: int, every: int, group: int, bits: int) -> tuple[Held, torch.Tensor]:
    """A superposition as a bank stores it, and element by element."""
    source = np.random.default_rng(rows + columns + every + bits)
    share = Share(rows, columns, every, group)
    if bits == 16:
        stored = source.integers(-999, 999, share.shape).astype(np.int16)
        numbers = stored.astype(np.float32) / np.float32(512)
        held = torch.from_numpy(stored)
    else:
        codes = source.integers(0, 2**bits, share.shape, dtype=np.uint8)
        numbers = np.asarray(levels(bits), np.float32)[codes]
        held = torch.from_numpy(pack_codes(codes.reshape(-1), bits))
    wanted = np.zeros((rows, columns), np.float32)
    for row in range(rows):
        mine = range(share.column(row), columns, every)
        wanted[row, list(mine)] = numbers[row, : len(mine)]
    exponent, packed = (9, 0) if bits == 16 else (0, bits)
    made = Held(held, (rows, columns), exponent, packed, every, group, dense=False)
    return made, torch.from_numpy(wanted)


@pytest.mark.parametrize("way", ["dense", "codes", "codes by torch"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("every", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [(16, 24), (17, 23), (7, 40)], ids=str)
def test_products_and_rows(
    size: tuple[int, int], every: int, bits: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "codes by torch":
        monkeypatch.setattr("randes_cli.live.weights.codes._FEW", {})
    for group in (0, 5):
        held, wanted = matrix(*size, every, group, bits)
        if way == "dense":
            held = made_dense(held, torch.float32)
            assert held.nbytes == 4 * every * -(-size[0] // every) * -(-size[1] // every)
        assert torch.equal(held.matrix(torch.float32), wanted)
        source = torch.Generator().manual_seed(1)
        for shape in ((3,), (2, 4)):
            x = torch.randn(*shape, size[1], generator=source)
            assert_near(held.product(x), x @ wanted.T)
            x = torch.randn(*shape, size[0], generator=source)
            assert_near(held.product(x, turned=True), x @ wanted)
            ids = torch.randint(0, size[0], shape, generator=source)
            assert torch.equal(held.rows(ids, torch.float32), wanted[ids])
        for rows in (slice(0, 4), slice(3, 7), slice(size[0] // 2, size[0])):
            part = held.part(rows, torch.float32)
            assert torch.equal(part.matrix(torch.float32), wanted[rows])
            x = torch.randn(3, size[1], generator=source)
            assert_near(part.product(x), x @ wanted[rows].T)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("every", [1, 4])
def test_a_product_by_tiles_is_that_of_the_whole(
    every: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, wanted = matrix(203, 37, every, 1, bits)
    monkeypatch.setattr("randes_cli.live.weights.codes._TILE", 600)
    monkeypatch.setattr("randes_cli.live.weights.codes._FEW", {})
    x = torch.randn(3, 37)
    assert_near(held.product(x), x @ wanted.T)
    x = torch.randn(3, 203)
    assert_near(held.product(x, turned=True), x @ wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_codes_are_the_levels_of_their_bits(bits: int, dtype: torch.dtype) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, 8 * 30, dtype=np.uint8)
    wanted = torch.from_numpy(np.asarray(levels(bits), np.float32)[codes]).to(dtype)
    assert torch.equal(unpack(torch.from_numpy(pack_codes(codes, bits)), bits, dtype), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [2, 16])
def test_a_product_in_half_precision_is_rounded_once(bits: int, dtype: torch.dtype) -> None:
    held, wanted = matrix(50, 301, 1, 0, bits)
    x = torch.randn(9, 301).to(dtype)
    assert held.product(x).dtype == dtype
    near = torch.finfo(dtype).eps if dtype != torch.float32 else 1e-6
    exact = x.double() @ wanted.double().T
    assert (held.product(x) - exact).abs().max() <= near * exact.abs().max()
