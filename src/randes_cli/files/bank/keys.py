"""The names of a bank's tensors, made and taken apart; `docs/bank-format.md` lists them."""

from __future__ import annotations

from collections import defaultdict
from itertools import compress
from math import prod
from operator import attrgetter, itemgetter, methodcaller
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import I64
from randes_cli.core.codes import packed_bytes
from randes_cli.core.columns import columns
from randes_cli.core.share import Share
from randes_cli.specs import TensorInfo, Tensors, once

MANIFEST = "manifest"
CHECKS = "checks"
NORMS = "stats/norms"
ROUNDED = "stats/rounded"
TAILS = "stats/tails"
FORGOTTEN = "stats/forgotten"
GRAM = "stats/gram"
BASE_DIGESTS = "stats/base-digests"
#: Beginning of the names of what sealing measured, by group.
CUTS = "stats/sealed/"


class Key(NamedTuple):
    """A name taken apart.

    Attributes:
        kind: its first part: base, sum, scale, own, files, stats, align, manifest or checks.
        owner: the group of a sum or its scales, the task of an own tensor; "" for others.
        name: what is left: a tensor of the base or of the task, a content, a number.
    """

    kind: str
    owner: str
    name: str


def parse_key(key: str) -> Key:
    """Take a name of a bank's tensor apart. The parts may be anything in a damaged bank."""
    kind, _, rest = key.partition("/")
    if kind not in ("sum", "scale", "own"):
        return Key(kind, "", rest)
    owner, _, name = rest.partition("/")
    return Key(kind, owner, name)


def kind_bytes(tensors: Tensors) -> dict[str, int]:
    numbers, of = once(_kinds, tensors)
    sizes = columns(tensors).of(attrgetter("nbytes"))
    return {kind: int(sizes[of == number].sum()) for kind, number in numbers.items()}


def sum_keys(tensors: Tensors) -> list[str]:
    numbers, of = once(_kinds, tensors)
    found = compress(tensors, (of == numbers.get("sum", -1)).tolist())
    return [key for key in found if key != "sum"]


def _kinds(tensors: Tensors) -> tuple[dict[str, int], I64]:
    """A number for each kind, and that of every tensor's."""
    numbers = defaultdict[str, int]()
    numbers.default_factory = numbers.__len__
    kinds = map(itemgetter(0), map(methodcaller("partition", "/"), tensors))
    return numbers, np.fromiter(map(numbers.__getitem__, kinds), np.intp, len(tensors))


def base_key(name: str) -> str:
    """Where the base's tensor lies in a bank."""
    return f"base/{name}"


def sum_key(group: int, name: str) -> str:
    """Where a group's superposition of a tensor lies in a bank."""
    return f"sum/{group}/{name}"


def scale_key(group: int, name: str) -> str:
    """Where the scales of a sealed superposition lie in a bank: rows' first, then columns'."""
    return f"scale/{group}/{name}"


def cut_key(group: int) -> str:
    """Where lies what became of the superpositions of a group as it was sealed."""
    return f"{CUTS}{group}"


def sum_tensor(group: int, tensor: TensorInfo, bits: int, share: Share | None = None) -> TensorInfo:
    """A superposition as a bank stores it; `share` None: of all elements."""
    shape = tensor.shape if share is None or share.every == 1 else share.shape
    return TensorInfo(sum_key(group, tensor.name), sum_dtype(bits), shape)


def sealed_tensors(
    group: int, tensor: TensorInfo, bits: int, share: Share
) -> tuple[TensorInfo, TensorInfo]:
    """The scales and the codes of a sealed superposition, as a bank stores them."""
    scales = TensorInfo(scale_key(group, tensor.name), "F16", (share.rows + share.cols,))
    size = packed_bytes(prod(share.shape), bits)
    return scales, TensorInfo(sum_key(group, tensor.name), "U8", (size,))


def own_key(task: str, name: str) -> str:
    """Where a task's exact tensor, or the extra rows of a resized one, lies in a bank."""
    return f"own/{task}/{name}"


def file_key(content: str) -> str:
    """Where a side file's content (named by its XXH3-128 in hexadecimal) lies in a bank."""
    return f"files/{content}"


def sum_dtype(bits: int) -> str:
    return "I16" if bits == 16 else "I8"
