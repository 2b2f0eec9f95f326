"""The container of a bank, read from docs/bank-format.md alone: header, JSON, chunks, digests.

Nothing of the package is imported here, nor in the modules beside it that read: what they know,
they know from the documents.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import xxhash

CHUNK = 1 << 20
ITEM_SIZE = (
    dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1)
    | dict.fromkeys(("I16", "U16", "F16", "BF16"), 2)
    | dict.fromkeys(("I32", "U32", "F32"), 4)
    | dict.fromkeys(("I64", "U64", "F64", "C64"), 8)
)


class BankError(Exception):
    """A rule of the format is broken."""


def need(condition: object, rule: str) -> None:
    """Raise BankError unless `condition` holds."""
    if not condition:
        raise BankError(rule)


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    need(len(made) == len(items), "a key twice")
    return made


def _refuse(word: str) -> None:
    raise BankError(f"not JSON: {word}")


def strict_json(data: bytes) -> Any:
    """JSON that two readers cannot understand differently."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeError, ValueError, RecursionError) as error:
        raise BankError(f"not strict JSON: {error}") from None
    return value


@dataclass(frozen=True)
class Entry:
    """One tensor of a file; its bytes are `first` to `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    first: int
    end: int


def parse_header(data: bytes) -> tuple[dict[str, Entry], Any, int]:
    """The tensors in the order of their data, `__metadata__`, and where the data begin."""
    need(len(data) >= 8, "shorter than its length field")
    (length,) = struct.unpack("<Q", data[:8])
    need(length <= 100_000_000 and 8 + length <= len(data), "a header longer than the file")
    need(data[8:9] == b"{", "a header that does not begin with {")
    header = strict_json(data[8 : 8 + length])
    need(isinstance(header, dict), "a header that is no object")
    metadata, start = header.pop("__metadata__", {}), 8 + length
    found = {}
    for name, entry in header.items():
        need(set(entry) == {"dtype", "shape", "data_offsets"}, f"{name}: fields")
        dtype, shape, (first, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        need(dtype in ITEM_SIZE, f"{name}: dtype {dtype}")
        need(len(shape) <= 64 and all(type(d) is int and d >= 0 for d in shape), f"{name}: shape")
        need(end - first == prod(shape) * ITEM_SIZE[dtype], f"{name}: size")
        found[name] = Entry(dtype, tuple(shape), start + first, start + end)
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].first, item[1].end)))
    at = start
    for name, place in ordered.items():
        need(place.first == at, f"{name}: a hole or an overlap before it")
        at = place.end
    need(at == len(data), "bytes behind the data")
    return ordered, metadata, start


def matrix(shape: Sequence[int]) -> tuple[int, int]:
    """(rows, columns): the product of the leading dimensions, the last; a vector is 1 × n."""
    return (prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def chunk_spans(shape: Sequence[int]) -> list[tuple[int, int]]:
    """First and last element (exclusive) of each chunk."""
    rows, columns = matrix(shape)
    total = rows * columns
    if total == 0:
        return []
    if columns > CHUNK:
        cuts = [(r, c) for r in range(rows) for c in range(0, columns, CHUNK)]
        return [(r * columns + c, r * columns + min(columns, c + CHUNK)) for r, c in cuts]
    step = CHUNK // columns * columns
    return [(first, min(total, first + step)) for first in range(0, total, step)]


def digest(data: bytes) -> bytes:
    """XXH3-128 with seed 0, canonical."""
    return xxhash.xxh3_128(data, seed=0).digest()


def chunk_digests(dtype: str, shape: Sequence[int], data: bytes) -> list[bytes]:
    """One digest a chunk."""
    size = ITEM_SIZE[dtype]
    return [digest(data[first * size : end * size]) for first, end in chunk_spans(shape)]


def fingerprint(tensors: Iterable[tuple[str, str, Sequence[int], bytes]]) -> str:
    """Of (name, dtype, shape, bytes); Python orders strings by code point."""
    running = xxhash.xxh3_128(seed=0)
    for name, dtype, shape, data in sorted(tensors, key=lambda tensor: tensor[0]):
        fields = (name, dtype, ",".join(map(str, shape)))
        running.update(b"".join(field.encode() + b"\0" for field in fields))
        for value in chunk_digests(dtype, shape, data):
            running.update(value)
    return running.hexdigest()
