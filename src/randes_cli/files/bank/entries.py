"""What tensors take in a file, without a record of each: columns for a header and a layout.

The header of a bank in one file comes first and is written last: it gets room beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import I64
from randes_cli.core.columns import columns
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.plain_header import compact, is_plain
from randes_cli.specs import FORMAT_NAME, FORMAT_VERSION, ITEM_SIZE, Table, TensorInfo

#: A header's entry but for the name, the dtype, the dimensions and the two offsets.
_FRAME = len('"":{"dtype":"","shape":[],"data_offsets":[,]}')
_POWERS = np.array([10**power for power in range(1, 19)], np.int64)


class Entries(NamedTuple):
    """Tensors in order.

    Attributes:
        text: bytes of each one's entry in a header, without the digits of its offsets.
        nbytes: bytes of its data.
        item: bytes of an element.
        chunks: its digests.
    """

    text: I64
    nbytes: I64
    item: I64
    chunks: I64

    @classmethod
    def of(cls, tensors: Iterable[TensorInfo] | Table) -> Entries:
        if isinstance(tensors, Table):
            found = columns(tensors)
            kinds = np.array([_kind(kind[1:]) for kind in found.kinds], np.int64).reshape(-1, 4)
            made = kinds[found.kind_of]
            made[:, 0] += _lengths(found.names)
            return cls(*made.T)
        tensors = list(tensors)
        made = np.array([*map(_kind, (tensor[1:] for tensor in tensors))], np.int64).reshape(-1, 4)
        made[:, 0] += _lengths([tensor.name for tensor in tensors])
        return cls(*made.T)

    @classmethod
    def joined(cls, parts: Iterable[Entries]) -> Entries:
        """Some after the others."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def named(self, more: I64) -> Entries:
        """The same with names that are so many bytes longer."""
        return self._replace(text=self.text + more)

    def at(self, rows: I64) -> Entries:
        return Entries(*(column[rows] for column in self))

    def header_bytes(self, metadata: Mapping[str, str]) -> int:
        """The length of `encode_header` of these tensors."""
        ends = np.cumsum(self.nbytes)
        digits = digits_of(ends) + digits_of(ends - self.nbytes)
        count = len(ends)
        text = 2 + int(self.text.sum() + digits.sum()) + max(0, count - 1)
        if metadata:
            text += len(compact({"__metadata__": dict(metadata)}).encode()) - 2 + (count > 0)
        return 8 + -(-text // 8) * 8

    def layout_bytes(self) -> int:
        """The bytes that a `Container` of these tensors takes, its table of digests included."""
        gaps = self.gaps()
        place = int(self.nbytes.sum()) + sum(gaps.values())
        return place + DIGEST_BYTES * (2 + len(gaps) + int(self.chunks.sum()))

    def gaps(self) -> dict[int, int]:
        """Bytes of the fillers that a `Container` puts in, by the row that each comes before."""
        made, place = dict[int, int](), 0
        there = np.flatnonzero(self.nbytes)
        item, nbytes = self.item[there], self.nbytes[there]
        cuts = np.flatnonzero(np.diff(item)) + 1
        for rows in np.split(np.arange(len(there)), cuts):
            if len(rows):
                gap = -place % int(item[rows[0]])
                made |= {int(there[rows[0]]): gap} if gap else {}
                place += gap + int(nbytes[rows].sum())
        return made


def _lengths(names: Sequence[str]) -> I64:
    plain = is_plain("".join(names))
    return np.fromiter(map(len if plain else name_bytes, names), np.int64, len(names))


def name_bytes(name: str) -> int:
    """Bytes of a name in JSON, without its quotes."""
    return len(name) if is_plain(name) else len(compact(name).encode()) - 2


@lru_cache(maxsize=2**12)
def _kind(kind: tuple[str, tuple[int, ...]]) -> tuple[int, int, int, int]:
    """An entry of a tensor without a name."""
    tensor = TensorInfo("", *kind)
    dtype, shape = kind
    text = _FRAME + len(dtype) + len(",".join(map(str, shape)))
    return text, tensor.nbytes, ITEM_SIZE[dtype], chunk_count(tensor)


def digits_of(numbers: I64) -> I64:
    return 1 + np.searchsorted(_POWERS, numbers, side="right")


#: What the header of a new bank says of it.
METADATA = {"format": FORMAT_NAME, "version": str(FORMAT_VERSION)}


def header_room(candidates: Iterable[TensorInfo]) -> int:
    """Bytes before the data of a bank in one file: enough for all of these tensors."""
    candidates = list(candidates)
    sums = (t.name.split("/", 2)[1] for t in candidates if t.name.startswith("sum/"))
    return room_of_entries(Entries.of(candidates), len({*sums}))


def room_of_entries(candidates: Entries, groups: int) -> int:
    """`header_room` of tensors, which have superpositions of so many groups."""
    count, total = len(candidates.text), int(candidates.nbytes.sum()) + 2**40
    digits = 2 * len(str(total)) + 2
    padding = '"align/":{"dtype":"U8","shape":[7],"data_offsets":[,]},'
    entry = len(padding) + len(str(count)) + digits
    spare = (8 + 2 * max(0, groups - 1)) * entry
    most = candidates.header_bytes(METADATA) + count * digits + spare
    return -(-most // 8) * 8
