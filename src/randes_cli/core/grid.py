"""The grid of a superposition: its step, a power of two per tensor."""

from __future__ import annotations

from math import frexp, log2, sqrt

import numpy as np

from randes_cli.core.arrays import F64, I64, Bools
from randes_cli.limits import LIMITS

#: Units that the RMS of one task's delta spans at 16 bits: rounding lies 47 dB below it.
UNITS_PER_RMS = 64
#: Standard deviations of the sum that the range of an 8-bit superposition holds.
HEADROOM_8_BIT = 8.0
#: Exponents whose steps, and grids of 2^24 steps, are normal float32 numbers.
EXPONENT_RANGE = LIMITS["step"]
#: Largest magnitude of one rounded delta and of a superposition, by bits.
LIMIT = {16: 2**15 - 1, 8: 2**7 - 1}


def _clamp(exponent: int) -> int:
    return max(EXPONENT_RANGE[0], min(EXPONENT_RANGE[1], exponent))


def step_exponent(rms: float, *, bits: int, capacity: int) -> int:
    """Exponent e of the step 2^e for deltas of root mean square `rms` > 0.

    16 bits: the power of two nearest to rms / 64.
    8 bits: the smallest that leaves ±127 steps for 8 standard deviations of `capacity` deltas.
    """
    if bits == 16:
        return _clamp(round(log2(rms / UNITS_PER_RMS)))
    mantissa, exponent = frexp(HEADROOM_8_BIT * rms * sqrt(capacity) / LIMIT[8])
    return _clamp(exponent - (mantissa == 0.5))


def step_exponents(rms: F64, *, bits: int, capacity: int) -> I64:
    """`step_exponent` of many tensors, the same to the bit; `rms` are above 0."""
    if bits == 16:
        found = [round(log2(one / UNITS_PER_RMS)) for one in rms.tolist()]
        exponents = np.array(found, np.int64)
    else:
        mantissas, raised = np.frexp(HEADROOM_8_BIT * rms * sqrt(capacity) / LIMIT[8])
        exponents = raised.astype(np.int64) - (mantissas == 0.5)
    made: I64 = np.clip(exponents, *EXPONENT_RANGE)
    return made


def steps_of(rms: F64, *, bits: int, capacity: int) -> F64:
    """The steps of `step_exponent` for many tensors, for predictions; 1 where `rms` is 0."""
    there = rms > 0
    exponents = step_exponents(np.where(there, rms, 1.0), bits=bits, capacity=capacity)
    return np.where(there, np.ldexp(1.0, exponents), 1.0)


def fits_8_bits(rms: F64, peak: F64, *, capacity: int) -> Bools:
    """Whether sampled deltas of this RMS and largest magnitude suit an 8-bit superposition.

    Heavy tails (embeddings) do not: their largest element, half as large again in the rows that
    the sample left out, on top of 4.5 standard deviations of the others, passes the range.
    """
    steps = np.ldexp(1.0, step_exponents(rms, bits=8, capacity=capacity))
    return np.asarray(1.5 * peak + 4.5 * rms * sqrt(capacity) <= LIMIT[8] * steps)


def raised_exponent(exponent: int, peak: int) -> int:
    """The next exponent to try after a value of `peak` steps passed the range of 16 bits."""
    return _clamp(exponent + max(1, (peak // LIMIT[16]).bit_length()))
