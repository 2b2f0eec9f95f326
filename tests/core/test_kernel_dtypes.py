"""Kernels with numbers of 16 bits: rounded as NumPy rounds them, and refused where infinite."""

from __future__ import annotations

import numpy as np
import pytest

from randes_cli.core.compiled.kernel import processor
from randes_cli.core.convert import narrow, numpy_dtype
from randes_cli.core.kernel import NonFinite
from tests.core.kernels import KERNELS, both, plain, values_of

#: As the compiled passes are for older processors, and for this one.
LEVELS = (1, 3, 99)


@both
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["base", "task", "both"])
def test_a_nan_or_infinity_of_base_or_task_raises(
    kind: str, dtype: str, value: float, where: str
) -> None:
    bad, good = (np.array([0, one, 1] * 12, numpy_dtype(dtype)) for one in (value, 1.0))
    base, task = (bad if where != other else good for other in ("task", "base"))
    kernel = KERNELS[kind](36, 1)
    for most in LEVELS:
        processor(most)
        kernel.set_base(0, base.view(np.uint8), dtype, 36)
        kernel.begin(36, None, 16)
        with pytest.raises(NonFinite):
            kernel.add(0, task.view(np.uint8), dtype, plain(1, 36))
        with pytest.raises(NonFinite):
            kernel.changed(0, task.view(np.uint8), dtype)


@both
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_whatever_comes_back_is_rounded_as_numpy_rounds_it(kind: str, dtype: str) -> None:
    """Every number of the dtype, those halfway between two, and their neighbours."""
    every = values_of(np.arange(2**16, dtype=np.uint16).view(np.uint8), dtype)
    every = np.unique(every[np.isfinite(every)])
    halves = ((every[1:].astype(np.float64) + every[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(halves, np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.concatenate([every, halves, *near, [-0.0]]).astype(np.float32)
    expected, out = np.empty((2, 2 * len(values)), np.uint8)
    narrow(values.copy(), dtype, expected)
    kernel, codes = KERNELS[kind](len(values), 1), np.zeros(len(values), np.uint8)
    kernel.set_base(0, values.view(np.uint8), "F32", len(values))
    for most in LEVELS:
        processor(most)
        kernel.retrieve(codes, 8, plain(1, len(values), -1.0), dtype, out)
        assert np.array_equal(out, expected)
