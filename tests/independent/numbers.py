"""Floating-point numbers and sealed codes, from docs/bank-format.md and docs/sealed.md alone."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.independent.container import need

Array = np.ndarray[Any, np.dtype[Any]]
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SEALED = Path(__file__).parents[2] / "docs" / "sealed.md"
LARGEST_F32 = float(np.finfo(np.float32).max)
#: The largest finite number that is written; a float64 is a widened float32.
LARGEST = {
    "F64": LARGEST_F32,
    "F32": LARGEST_F32,
    "BF16": float(np.uint32(0x7F7F0000).view(np.float32)),
    "F16": 65504.0,
    "F8_E4M3": 448.0,
    "F8_E5M2": 57344.0,
}


def _f8(exponent_bits: int, mantissa_bits: int, bias: int) -> Array:
    """The values of the 256 codes of an 8-bit float; beyond the largest finite one are NaN."""
    made = np.empty(256, np.float32)
    for code in range(256):
        exponent = (code & 0x7F) >> mantissa_bits
        mantissa = code & ((1 << mantissa_bits) - 1)
        fraction = (exponent > 0) + mantissa * 2.0**-mantissa_bits
        value = fraction * 2.0 ** (max(exponent, 1) - bias)
        largest = LARGEST["F8_E4M3" if mantissa_bits == 3 else "F8_E5M2"]
        made[code] = (-1.0 if code & 0x80 else 1.0) * (value if value <= largest else np.nan)
    return made


F8 = {"F8_E4M3": _f8(4, 3, 7), "F8_E5M2": _f8(5, 2, 15)}


def to_f32(dtype: str, data: bytes) -> Array:
    """Stored values as float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in F8:
        return np.asarray(F8[dtype][np.frombuffer(data, np.uint8)])
    with np.errstate(over="ignore"):
        return np.frombuffer(data, f"<f{ {'F64': 8, 'F32': 4, 'F16': 2}[dtype] }").astype(
            np.float32
        )


def from_f32(dtype: str, values: Array) -> bytes:
    """float32 to a dtype: to the nearest, ties to even, beyond the range to its largest."""
    limit = np.float32(LARGEST[dtype])
    x = np.clip(values, -limit, limit)
    if dtype == "BF16":
        bits = x.view(np.uint32)
        rounded: Array = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.asarray(rounded, "<u2").tobytes()
    if dtype not in F8:
        return x.astype(f"<f{ {'F64': 8, 'F32': 4, 'F16': 2}[dtype] }").tobytes()
    positive = F8[dtype][:128].astype(np.float64)
    positive = positive[np.isfinite(positive)]
    size = np.abs(x.astype(np.float64))
    low = np.clip(np.searchsorted(positive, size, side="right") - 1, 0, len(positive) - 2)
    middle = (positive[low] + positive[low + 1]) / 2
    code = low + ((size > middle) | ((size == middle) & (low % 2 == 1)))
    return np.asarray(code + np.where(np.signbit(x), 128, 0), np.uint8).tobytes()


def convert(data: bytes, source: str, target: str) -> bytes:
    """Bytes of one dtype in another; the same are left as they are."""
    return data if source == target else from_f32(target, to_f32(source, data))


@cache
def levels(bits: int) -> Array:
    """The 2^bits levels in ascending order, from the table of the document."""
    table = SEALED.read_text("utf-8").split("```levels\n")[1].split("```")[0]
    _, *parts = re.split(r"levels (\d+)\n", table)
    words = dict(zip(parts[::2], parts[1::2], strict=True))[str(bits)].split()
    half = np.array([int(word, 16) for word in words], np.uint32).view(np.float32)
    need(len(half) == 2 ** (bits - 1), "the number of levels")
    return np.concatenate([-half[::-1], half])


def unpack_codes(data: bytes, bits: int, count: int) -> Array:
    """Codes of `bits` each, the least significant bit first."""
    raw = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: count * bits]
    made: Array = raw.reshape(count, bits) @ (1 << np.arange(bits)).astype(np.uint8)
    return made.astype(np.int64)
