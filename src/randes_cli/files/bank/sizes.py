"""How many bytes a bank takes, in one file or in shards, from what it holds; nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from randes_cli.files.bank.container import FRAME
from randes_cli.files.bank.entries import METADATA, Entries
from randes_cli.files.bank.keys import CHECKS, MANIFEST
from randes_cli.files.bank.shards import (
    FEATURE,
    SHARD_METADATA,
    SHARDS,
    Layout,
    most_bytes,
    part_of,
    shard_key,
)
from randes_cli.files.digests import DIGEST_BYTES
from randes_cli.specs import TensorInfo

#: Bytes that a shard counts for a tensor beside its entry, data and digests (`room_of`).
_BESIDE = len(",") + 38 + 2**7


class Size(NamedTuple):
    """Bytes of a bank, and of how many files."""

    bytes: int
    files: int


def parts_of(tensors: Iterable[TensorInfo]) -> list[Entries]:
    """Tensors in their order, cut where another part of the bank begins."""
    return [Entries.of(some) for _, some in groupby(tensors, lambda one: part_of(one.name))]


def bank_bytes(
    parts: Sequence[Entries], room: int, text: int, *, asked: int | None, old: int | None = None
) -> Size:
    """The size of a bank of these tensors, and a manifest of `text` bytes.

    A shard begins with each of `parts`. `room` are the bytes before the data of one file; `asked`
    and `old` are as of `most_bytes`.
    """
    manifest = Entries.of([TensorInfo(MANIFEST, "U8", (text,))])
    whole = room + Entries.joined([*parts, manifest]).layout_bytes()
    most = most_bytes(asked, whole, old)
    return Size(whole, 1) if most is None else _sharded(parts, room, text, most)


def _sharded(parts: Sequence[Entries], room: int, text: int, most: int) -> Size:
    """The same of an index and its shards, each of at most so many bytes."""
    shards = [shard for part in parts for shard in _cut(part, most)]
    heads = [_header(shard, SHARD_METADATA) for shard in shards]
    checks = [_checks_bytes(shard) for shard in shards]
    tables = map(sum, zip(heads, checks, strict=True))
    layout = len(Layout(room, most).encode())
    inside = [
        TensorInfo(SHARDS, "U8", (layout,)),
        *(TensorInfo(shard_key("0" * 32), "U8", (size,)) for size in tables),
        TensorInfo(MANIFEST, "U8", (text + len(f',"{FEATURE}"'),)),
    ]
    index = Entries.of(inside)
    total = sum(heads) + sum(shard.layout_bytes() for shard in shards)
    return Size(total + _header(index, METADATA) + index.layout_bytes(), len(shards) + 1)


def _cut(part: Entries, most: int) -> Iterator[Entries]:
    """The shards of one part: see `BankWriter.place`."""
    sizes = part.nbytes + part.text + _BESIDE + DIGEST_BYTES * part.chunks
    first, filled = 0, FRAME
    for row, size in enumerate(sizes.tolist()):
        if row > first and filled + size > most:
            yield part.at(np.arange(first, row))
            first, filled = row, FRAME
        filled += size
    if len(sizes):
        yield part.at(np.arange(first, len(sizes)))


def _header(inside: Entries, metadata: Mapping[str, str]) -> int:
    """Bytes of a file's header, which has its fillers and table of digests, too."""
    checks = Entries.of([TensorInfo(CHECKS, "U8", (_checks_bytes(inside),))])
    return Entries.joined([_filled(inside), checks]).header_bytes(metadata)


def _checks_bytes(inside: Entries) -> int:
    return DIGEST_BYTES * (2 + int(_filled(inside).chunks.sum()))


def _filled(inside: Entries) -> Entries:
    """The tensors of a file with its fillers among them."""
    gaps = inside.gaps()
    at = sorted(gaps)
    fillers = Entries.of(TensorInfo(f"align/{row}", "U8", (gaps[row],)) for row in at)
    return Entries(*map(np.insert, inside, (at,) * len(inside), fillers))
