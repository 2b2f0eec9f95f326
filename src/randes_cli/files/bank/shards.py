"""Banks in shards: their names, how tensors are cut into them, and what the index says of each.

`docs/bank-format.md` specifies it. A shard is named by the last digest of its `checks`, which
covers every byte of it; the index holds its header and `checks` too, so that opening a bank reads
one file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from randes_cli.core.arrays import I64
from randes_cli.core.columns import columns
from randes_cli.errors import BankDamaged
from randes_cli.files.bank.keys import CHECKS, MANIFEST, parse_key
from randes_cli.files.digests import DIGEST_BYTES, chunk_count, digest
from randes_cli.files.header import Header, parse_header, parse_json
from randes_cli.files.local.system import is_folder, resolved
from randes_cli.files.location import P
from randes_cli.limits import Limit
from randes_cli.specs import FORMAT_NAME, TensorInfo

#: What a bank in shards requires of its reader.
FEATURE = "shards"
#: In the index: the options of the layout.
SHARDS = "shards"
#: What the header of a shard says of it.
SHARD_METADATA = {"format": f"{FORMAT_NAME}-shard"}
#: Bytes of the largest file that the Hub takes; a larger bank is written in shards.
LARGEST_FILE = 50 * 10**9
_DIGEST = re.compile("[0-9a-f]{32}")
_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
_SIZES = Limit(1, 2**63 - 1)


def shard_key(name: str) -> str:
    """Where the index has the header and the digests of a shard."""
    return f"shard/{name}"


def folder_beside(bank: P) -> P:
    """The folder of the shards of an index, here or in a store."""
    return bank.with_name(f"{bank.name}.d")


def shard_folder(bank: Path) -> Path:
    """Where the shards of a bank lie: beside its index, or beside what a link there leads to."""
    with suppress(OSError):  # whoever opens it says what is wrong
        if bank.is_symlink() and not is_folder(folder_beside(bank)):
            return folder_beside(resolved(bank))
    return folder_beside(bank)


def shard_file(name: str) -> str:
    return f"{name}.safetensors"


def is_shard_file(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def most_bytes(asked: int | None, size: int, old: int | None = None) -> int | None:
    """The most bytes of a shard, or None for one file.

    As `asked` (0: one file); else as the bank that is edited has it; else one file up to what the
    Hub takes.
    """
    if asked is not None:
        return asked or None
    if old is not None:
        return old
    return LARGEST_FILE if size > LARGEST_FILE else None


def part_of(key: str) -> str:
    """What may be in one shard: the base, one group's superpositions, statistics, or the rest."""
    kind, owner, _ = parse_key(key)
    if kind in ("sum", "scale"):
        return f"sum/{owner}"
    return kind if kind in ("base", "stats") else "rest"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a bank in shards was cut.

    Attributes:
        room: bytes before the data of the same bank in one file.
        most: bytes of its largest shard, as asked for.
    """

    room: int
    most: int

    def encode(self) -> bytes:
        return json.dumps({"room": self.room, "most": self.most}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Layout:
        """Raises BankDamaged."""
        try:
            value = parse_json(data)
        except ValueError as error:
            raise BankDamaged(f"shards: {error}") from None
        if not isinstance(value, dict):
            raise BankDamaged("shards: is no object")
        room, most = (_count(value, name) for name in ("room", "most"))
        if room % 8:
            raise BankDamaged("shards: room is no multiple of 8")
        return cls(room, most)


def _count(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name)
    if not isinstance(found, int) or not _SIZES.holds(found):
        raise BankDamaged(f"shards: {name} is no size")
    return found


@dataclass(frozen=True, slots=True)
class Contents:
    """What one file of a bank holds.

    Attributes:
        head: its header as bytes; of a shard alone.
        header: the same, read.
        checks: its table of digests.
        first: where those of each tensor begin there, by its number.
    """

    head: bytes | memoryview
    header: Header
    checks: bytes
    first: I64

    @classmethod
    def of(cls, head: bytes | memoryview, header: Header, checks: bytes) -> Contents:
        """Check that the table belongs to the header. Raises BankDamaged."""
        sizes = DIGEST_BYTES * columns(header.tensors).of(chunk_count)
        sizes[columns(header.tensors).at([CHECKS])] = 0  # it has no digest of itself
        ends = DIGEST_BYTES + np.cumsum(sizes)
        if len(checks) != ends[-1] + DIGEST_BYTES:
            raise BankDamaged("checks has a wrong length")
        if digest(checks[:-DIGEST_BYTES]) != checks[-DIGEST_BYTES:]:
            raise BankDamaged("the table of digests is damaged")
        if digest(head) != checks[:DIGEST_BYTES]:
            raise BankDamaged("the header is damaged")
        return cls(head, header, checks, ends - sizes)

    def digests(self, key: str) -> bytes:
        """The digests of a tensor's chunks, joined."""
        tensors = self.header.tensors
        start = int(self.first[tensors.numbers[key]])
        return self.checks[start : start + DIGEST_BYTES * chunk_count(tensors[key])]

    @property
    def content(self) -> I64:
        """The numbers of its tensors but fillers and the table of digests."""
        names = self.header.tensors.names
        return np.array([n for n, name in enumerate(names) if not _is_frame(name)], np.int64)

    @property
    def names(self) -> list[str]:
        """Those of the same."""
        return [name for name in self.header.tensors if not _is_frame(name)]


def _is_frame(name: str) -> bool:
    return name.partition("/")[0] in ("align", CHECKS)


def read_shard(key: str, data: bytes) -> Contents:
    """What the index says of a shard, checked whole. Raises BankDamaged."""
    name = key.removeprefix(shard_key(""))
    try:
        if not _DIGEST.fullmatch(name):
            raise ValueError("is not named by a digest")
        head = data[: 8 + int.from_bytes(data[:8], "little")]
        header, checks = parse_header(head[8:]), data[len(head) :]
        last = header.tensors.get(header.tensors.names[-1]) if header.tensors else None
        if last != TensorInfo(CHECKS, "U8", (len(checks),)) or header.metadata != SHARD_METADATA:
            raise ValueError("is not that of a shard")
        made = Contents.of(head, header, checks)
        if checks[-DIGEST_BYTES:].hex() != name:
            raise ValueError("has another name than its content")
        if MANIFEST in header.tensors or SHARDS in header.tensors:
            raise ValueError("has what only an index may have")
    except (ValueError, BankDamaged) as error:
        raise BankDamaged(f"shard {name[:40]!r}: {error}") from None
    return made
