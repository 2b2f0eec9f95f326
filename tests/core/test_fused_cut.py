"""Compiled passes of `seal` give NumPy's codes, sums of squares and agreement."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core import seal_passes as both
from randes_cli.core.agreement import part_of
from randes_cli.core.codes import fit_scales, inverse_scales, pack_codes, packed_bytes
from randes_cli.core.compiled import cut as fused_cut
from randes_cli.core.compiled.kernel import available
from randes_cli.core.levels import SEAL_BITS, thresholds
from randes_cli.core.seal_passes import Scales, Units

if not available():
    pytest.skip("not compiled", allow_module_level=True)


def units(rows: int, cols: int, dtype: type) -> Units:
    """Heavy-tailed integers, some rows and columns of zeros, and the largest that there are."""
    most = np.iinfo(dtype).max
    random = np.random.default_rng(rows)
    made = np.clip(random.standard_t(2, (rows, cols)) * most / 40, -most, most)
    made[::7] = 0
    made[:, ::11] = 0
    made[1, 1:3] = most, -most
    found: Units = made.astype(dtype).reshape(-1)
    return found


@pytest.mark.parametrize("bits", SEAL_BITS)
@pytest.mark.parametrize("dtype", [np.int16, np.int8])
@pytest.mark.parametrize(("rows", "cols", "every"), [(37, 43, 1), (5, 3001, 1), (64, 40, 4)])
def test_codes_and_sums_are_those_of_numpy(
    rows: int,
    cols: int,
    every: int,
    dtype: type,
    bits: int,
    level: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = units(rows, cols, dtype)

    def passes() -> list[object]:
        along, table = np.zeros(rows, np.int64), np.zeros((every, cols), np.int64)
        half = rows // 2 * cols
        both.add_squares(values[:half], 0, along, table)
        both.add_squares(values[half:], half, along[rows // 2 :], table)
        made: list[object] = [along.tolist(), table.tolist()]
        scales = fit_scales(along, table.sum(axis=0), bits)
        inverse, read = inverse_scales(*scales, bits), [s.astype(np.float32) for s in scales]
        # Every residue of rows has column scales of its own.
        tables = [
            np.stack([s * np.float32(1 + n) for n in range(every)]) for s in (inverse[1], read[1])
        ]
        part = part_of(read[0], tables[1], bits)
        how = Scales((inverse[0], tables[0]), (read[0], tables[1]), part)
        for start in (0, 16, 1024):
            codes = np.empty(packed_bytes(len(values[start:]), bits), np.uint8)
            near = both.cut(values[start:], start, bits, how, codes)
            made += [codes.tobytes(), near]
            out = np.empty(len(values) - start, np.float32)
            both.read(codes, bits, start, how.read, out)
            made.append(out.tobytes())
        return made

    compiled = passes()
    monkeypatch.setattr(fused_cut, "library", lambda: None)
    monkeypatch.setattr(both, "_AT_ONCE", 1024)
    assert passes() == compiled, level


@pytest.mark.parametrize("bits", SEAL_BITS)
def test_a_number_at_a_threshold_has_the_code_below_it(bits: int, level: int) -> None:
    limits, codes = np.resize(thresholds(bits), 200), np.arange(200) % (2**bits - 1)
    one, out = np.ones(200, np.float32), np.empty(packed_bytes(200, bits), np.uint8)
    for more, scaled in enumerate((limits, np.nextafter(limits, np.float32(np.inf)))):
        how = Scales((one[:1], scaled[None]), (one[:1], one[None]), 0)
        both.cut(np.ones(200, np.int16), 0, bits, how, out)
        assert np.array_equal(out, pack_codes((codes + more).astype(np.uint8), bits)), level
