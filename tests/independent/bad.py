"""Banks that each break one rule of the format, with true digests where the rule is another."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import xxhash

Parts = dict[str, tuple[str, list[int], bytes]]


def digest(data: bytes) -> bytes:
    """As `checks` has them."""
    return xxhash.xxh3_128(data).digest()


def parts(bank: bytes) -> Parts:
    """name → (dtype, shape, bytes) of every tensor, in the order of the data."""
    (length,) = struct.unpack("<Q", bank[:8])
    header = json.loads(bank[8 : 8 + length])
    del header["__metadata__"]
    made = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, end = (8 + length + at for at in entry["data_offsets"])
        made[name] = entry["dtype"], entry["shape"], bank[first:end]
    return made


def joined(tensors: Parts, version: str, *, header: Mapping[str, object] | None = None) -> bytes:
    """A bank of these tensors, all of one chunk, with true digests; `header` changes entries."""
    entries: dict[str, object] = {"__metadata__": {"format": "randes", "version": version}}
    at = 0
    checks = 16 * (sum(1 for name, part in tensors.items() if name != "checks" and part[2]) + 2)
    for name, (dtype, shape, data) in tensors.items():
        size = checks if name == "checks" else len(data)
        dimensions = [checks] if name == "checks" else shape
        entries[name] = {"dtype": dtype, "shape": dimensions, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({**entries, **(header or {})}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text
    body = [part[2] for name, part in tensors.items() if name != "checks"]
    digests = digest(whole) + b"".join(digest(data) for data in body if data)
    return whole + b"".join(body) + digests + digest(digests)


def with_manifest(tensors: Parts, change: Callable[[dict[str, Any]], None]) -> Parts:
    """The same with another manifest, padded so that everything behind it keeps its place."""
    manifest = json.loads(tensors["manifest"][2])
    change(manifest)
    data = json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode()
    return {**tensors, "manifest": ("U8", [len(data)], data)}


def bad_banks(good: bytes) -> dict[str, tuple[str, bytes]]:
    """Ten banks, each breaking one rule: name → the rule and the bytes."""
    tensors = parts(good)
    (length,) = struct.unpack("<Q", good[:8])
    version: str = json.loads(good[8 : 8 + length])["__metadata__"]["version"]
    first = next(iter(tensors))
    dtype, shape, data = tensors[first]
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data) - 4]}

    def set_to(key: str, value: object) -> Callable[[dict[str, Any]], None]:
        return lambda manifest: manifest.update({key: value})

    def twice(text: bytes) -> bytes:
        return text.replace(b'"bits":', b'"bits":16,"bits":', 1)

    manifest = tensors["manifest"][2]
    doubled = twice(manifest)
    half = manifest.replace(b'"features":[', b'"features":["\\ud800",', 1)
    flipped = bytearray(good)
    flipped[8 + length + 1] ^= 1
    padded = bytearray(good)
    padded[8 + length - 1] = ord("\t") if good[8 + length - 1 : 8 + length] == b" " else 0
    raw = joined({**tensors, "manifest": ("U8", [len(doubled)], doubled)}, version)
    halves = joined({**tensors, "manifest": ("U8", [len(half)], half)}, version)
    return {
        "size-of-a-tensor": (
            "1: end - first = product of shape × bytes of dtype",
            joined(tensors, version, header={first: entry}),
        ),
        "bytes-behind": ("1: nothing behind the data", good + bytes(8)),
        "flipped-bit": ("7: every byte has a digest", bytes(flipped)),
        "header-padding": ("7: the header's digest covers its padding", bytes(padded)),
        "key-twice": ("1: no key twice", raw),
        "half-a-character": ("1: no half characters", halves),
        "unknown-feature": (
            "3: an unknown feature is refused by name",
            joined(with_manifest(tensors, lambda m: m["features"].append("sorcery")), version),
        ),
        "newer-version": (
            "3: a reader refuses a larger version",
            joined(with_manifest(tensors, set_to("version", 99)), version),
        ),
        "wrong-type": (
            "3: a wrong type is refused by field",
            joined(with_manifest(tensors, set_to("seed", "42")), version),
        ),
        "sum-missing": (
            "2: a tensor with a step has a superposition",
            joined({n: part for n, part in tensors.items() if n != f"sum/0/{LAST}"}, version),
        ),
    }


#: The last tensor of LAYERS, whose superposition one of the bad banks lacks.
LAST = "h.4.n.bias"
