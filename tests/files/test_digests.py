"""Fingerprints: functions of content alone."""

from __future__ import annotations

from collections.abc import Mapping

import xxhash

from randes_cli.files.digests import digest, fingerprint
from randes_cli.specs import TensorInfo

TENSORS = {
    "b": TensorInfo("b", "F32", (2, 3)),
    "a": TensorInfo("a", "I64", ()),
}
DIGESTS = {"b": digest(b"values of b"), "a": digest(b"values of a")}


def changed(tensors: Mapping[str, TensorInfo], digests: Mapping[str, bytes]) -> bool:
    return fingerprint(tensors, digests) != fingerprint(TENSORS, DIGESTS)


def test_a_fingerprint_is_the_digest_that_the_format_describes() -> None:
    text = b"a\0I64\0\0" + DIGESTS["a"] + b"b\0F32\x002,3\0" + DIGESTS["b"]
    assert fingerprint(TENSORS, DIGESTS) == xxhash.xxh3_128(text, seed=0).hexdigest()


def test_the_order_of_tensors_does_not_matter() -> None:
    assert not changed(dict(reversed(TENSORS.items())), dict(reversed(DIGESTS.items())))


def test_names_dtypes_shapes_and_values_matter() -> None:
    renamed = {"c": TensorInfo("c", "F32", (2, 3)), "a": TENSORS["a"]}
    assert changed(renamed, DIGESTS | {"c": DIGESTS["b"]})
    assert changed(TENSORS | {"b": TensorInfo("b", "I32", (2, 3))}, DIGESTS)
    assert changed(TENSORS | {"b": TensorInfo("b", "F32", (3, 2))}, DIGESTS)
    assert changed(TENSORS, DIGESTS | {"b": digest(b"other values")})
