"""Between stored dtypes and float32, on the CPU.

bfloat16 is done here by bits (it is the common case and a 16-bit shift); the float8 dtypes are
those of ml_dtypes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from randes_cli.core.arrays import F32, Raw
from randes_cli.specs import DTYPES

#: The largest finite number of each dtype; of float64, the largest that float32 arithmetic meets.
LARGEST = {
    "F64": (2 - 2**-23) * 2.0**127,
    "F32": (2 - 2**-23) * 2.0**127,
    "F16": 65504.0,
    "BF16": (2 - 2**-7) * 2.0**127,
    "F8_E4M3": 448.0,
    "F8_E5M2": 57344.0,
}
#: The smallest float32 that rounding takes beyond each dtype's range: half a unit past the
#: largest, or the next float32 where that tie rounds down to the largest.
BEYOND = {
    "F64": float("inf"),
    "F32": float("inf"),
    "F16": 65520.0,
    "BF16": (2 - 2**-8) * 2.0**127,
    "F8_E4M3": 464 + 2.0**-15,
    "F8_E5M2": 61440.0,
}

#: A step below which no retrieval passes float32, nor bfloat16 from a base of it: 2^25 of them, the
#: most of a sealed value, are less than half a unit of their largest numbers.
NEVER_BEYOND = 2.0 ** (103 - 25)


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype (of ml_dtypes where NumPy has none) of a safetensors dtype."""
    name = DTYPES[dtype].numpy
    if hasattr(np, name):
        return np.dtype(name)
    import ml_dtypes

    kind: type[Any] = getattr(ml_dtypes, name)
    return np.dtype(kind)


#: Bits of a float32 that a float16 shifted by 13 fills: its sign, five exponent bits, fraction.
_FLOAT16_PLACES = np.int32(0x0FFFE000 - 2**31)


def widen(raw: Raw, dtype: str, out: F32) -> None:
    """Write the float32 values of stored bytes `raw` to `out` (as many elements)."""
    if dtype == "BF16":
        words = out.view(np.uint32)
        np.copyto(words, raw.view(np.uint16))
        np.left_shift(words, 16, out=words)
    elif not (dtype == "F16" and _widen_float16(raw, out)):
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, raw.view(numpy_dtype(dtype)), casting="unsafe")


def _widen_float16(raw: Raw, out: F32) -> bool:
    """Widen float16 by bits, several times as fast as NumPy; False (undone) where not all finite.

    Sign, exponent and fraction move into place; the product by 2^112, exact, corrects the bias
    of the exponent and normalises subnormal numbers.
    """
    words = out.view(np.int32)
    np.copyto(words, raw.view(np.int16))
    np.left_shift(words, 13, out=words)
    np.bitwise_and(words, _FLOAT16_PLACES, out=words)
    np.multiply(out, np.float32(2.0**112), out=out)
    return not out.size or max(float(out.max()), -float(out.min())) < 2.0**16


def narrow(values: F32, dtype: str, out: Raw, scratch: F32 | None = None) -> int:
    """Write float32 `values` as `dtype` to the bytes `out`, rounding half to even.

    Values beyond the dtype's range (an infinity is beyond float32's) become its largest finite
    number of that sign. Returns how many did. `values` may be overwritten, and are not NaN;
    so may `scratch` (at least as many elements; it spares an allocation).
    """
    if dtype == "BF16":
        return _narrow_bfloat16(values, out, np.empty_like(values) if scratch is None else scratch)
    target = out.view(numpy_dtype(dtype))
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(target, values, casting="unsafe")
    lost = ~np.isfinite(target)
    count = int(np.count_nonzero(lost))
    if count:
        target[lost] = np.copysign(LARGEST[dtype], values[lost]).astype(target.dtype)
    return count


def _narrow_bfloat16(values: F32, out: Raw, scratch: F32) -> int:
    words, odd = values.view(np.uint32), scratch.view(np.uint32)[: values.size]
    np.right_shift(words, 16, out=odd)
    np.bitwise_and(odd, 1, out=odd)
    np.add(words, odd, out=words)
    np.add(words, np.uint32(0x7FFF), out=words)
    np.right_shift(words, 16, out=words)
    target = out.view(np.uint16)
    np.copyto(target, words, casting="unsafe")
    # Infinity is the largest of the positive numbers, and of the negative ones.
    if not target.size or (target.view(np.int16).max() < 0x7F80 and target.max() < 0xFF80):
        return 0
    lost = (target & 0x7FFF) >= 0x7F80
    target[lost] -= 1
    return int(np.count_nonzero(lost))


def all_finite(raw: Raw, dtype: str) -> bool:
    """Whether stored floating-point values have no NaN and no infinity."""
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(raw.view(numpy_dtype(dtype))).all())


def values_of(raw: Raw, dtype: str) -> NDArray[np.floating[Any]]:
    """Stored floating-point values: as they are where that is F64, else in float32."""
    if dtype == "F64":
        return raw.view(np.float64)
    values = np.empty(len(raw) // DTYPES[dtype].size, np.float32)
    widen(raw, dtype, values)
    return values
