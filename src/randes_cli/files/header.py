"""The safetensors header: one reader that checks everything before anything is allocated."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, prod
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from xxhash import xxh3_128_digest

from randes_cli.core.arrays import I64
from randes_cli.core.columns import table_of
from randes_cli.errors import CheckpointError, InputOutputError
from randes_cli.files.kinds import other_file, text_in_place
from randes_cli.files.local.system import fill
from randes_cli.files.plain_header import Rows, plain_rows
from randes_cli.limits import LONGEST_NAME, MOST_HEADER, has_control
from randes_cli.specs import ITEM_SIZE, Kind, Table

#: An escape that is a character only together with the next one.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Header:
    """A checked header. Files with the same one share it, for as long as one of them is open.

    Attributes:
        tensors: by name, in the order of their data.
        offsets: of each one's first byte in the file, by its number.
        metadata: the header's ``__metadata__``.
        size: bytes before the data: 8 + the length of the JSON.
        file_size: bytes of the whole file.
    """

    tensors: Table
    offsets: I64
    metadata: Mapping[str, str]
    size: int
    file_size: int

    def start(self, name: str) -> int:
        """Offset of a tensor's first byte in the file."""
        return int(self.offsets[self.tensors.numbers[name]])

    @cached_property
    def starts(self) -> Mapping[str, int]:
        """The same of every tensor, for who asks for many one by one."""
        return dict(zip(self.tensors.names, self.offsets.tolist(), strict=True))


_ENTRY = {"dtype", "shape", "data_offsets"}
_COUNT_END = 2**63


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice[:200]!r}")
    return made


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:40]} is not a number that fits")
    return value


#: Digits of the longest integer that is read.
_MOST_DIGITS = 4000


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _may_have_long(data: bytes) -> bool:
    """Whether more digits in a row than are read may be in it: such have half as many after one of
    these places."""
    half = _MOST_DIGITS // 2
    return any(data[at : at + half].isdigit() for at in range(0, len(data), half))


def _decoder(parse_int: Callable[[str], int], *, strict: bool) -> json.JSONDecoder:
    """A reader of strict JSON, or of what Python takes for it."""
    if not strict:
        return json.JSONDecoder(parse_int=parse_int)
    return json.JSONDecoder(
        object_pairs_hook=_unique,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        parse_int=parse_int,
    )


def parse_json(data: bytes, *, strict: bool = True) -> Any:
    """Strict JSON: UTF-8, no key twice, no boundless number. Raises ValueError with the reason.

    Not `strict` is for configurations, which Python writes with ``Infinity`` and ``NaN``, and of
    which it reads the last of equal keys.
    """
    # A look at every integer would take as long as all the rest, so it is for odd files alone.
    look = len(data) > _MOST_DIGITS and _may_have_long(data)
    try:
        made = _decoder(_whole if look else int, strict=strict).decode(data.decode("utf-8"))
        if _SURROGATE.search(data):
            json.dumps(made, ensure_ascii=False).encode()
        return made
    except UnicodeEncodeError:
        raise ValueError("an escape of half a character (a lone surrogate)") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _are_counts(values: list[object]) -> bool:
    for value in values:  # noqa: SIM110 - a generator takes thrice as long
        if type(value) is not int or not 0 <= value < _COUNT_END:
            return False
    return True


#: Room for what a bank puts before a tensor's name: ``own/<task>/``.
_LONGEST_KEY = LONGEST_NAME + 128


def _entry(name: str, entry: object) -> tuple[Kind, int, int]:
    if len(name) > _LONGEST_KEY:
        raise ValueError(f"tensor {name[:60]!r}…: a name of {len(name)} characters")
    if has_control(name):
        raise ValueError(f"tensor {name[:200]!r}: control characters in its name")
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise ValueError(f"tensor {name[:200]!r}: not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE:
        raise ValueError(
            f"tensor {name[:200]!r}: dtype {str(dtype)[:40]!r} is packed or unknown; "
            "give the unquantised checkpoint"
        )
    if not isinstance(shape, list) or len(shape) > 64 or not _are_counts(shape):
        raise ValueError(f"tensor {name[:200]!r}: bad shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not _are_counts(offsets):
        raise ValueError(f"tensor {name[:200]!r}: bad data_offsets")
    start, stop = offsets
    if prod(shape) * ITEM_SIZE[dtype] != stop - start:
        raise ValueError(f"tensor {name[:200]!r}: shape, dtype and data_offsets disagree")
    return (dtype, tuple(shape)), start, stop


#: Headers in use, by the digest of their JSON: fine-tunes of one base have one as a rule.
_IN_USE: WeakValueDictionary[bytes, Header] = WeakValueDictionary()


def parse_header(data: bytes, *, file_size: int | None = None) -> Header:
    """Check the JSON of a header and that its tensors tile the rest of the file exactly.

    `file_size` None: of a file that is not at hand; it is as long as its tensors say.
    Raises ValueError with the reason.
    """
    key = xxh3_128_digest(data)
    known = _IN_USE.get(key)
    if known is None or file_size not in (None, known.file_size):
        known = _IN_USE[key] = _parsed(data, file_size)
    return known


def _parsed(data: bytes, file_size: int | None) -> Header:
    metadata, rows = _plain(data) or _any(data)
    size, names = 8 + len(data), rows.names
    ends = np.append(0, rows.stops)
    for place in np.flatnonzero(rows.starts != ends[:-1]).tolist():
        raise ValueError(f"tensor {names[place][:200]!r}: its data overlap or leave a hole")
    end = size + int(ends[-1])
    if file_size is not None and end != file_size:
        kind = "truncated" if end > file_size else "followed by other bytes"
        raise ValueError(f"{kind}: {end} bytes declared, {file_size} there")
    table = table_of(names, rows.kinds, rows.kind_of)
    return Header(table, rows.starts + size, metadata, size, end)


_METADATA = '{"__metadata__":'


def _plain(data: bytes) -> tuple[dict[str, str], Rows] | None:
    """Metadata and tensors of a header as writers make it; None where it is not quite so."""
    if not data.isascii():
        return None
    text, metadata, end = data.decode("ascii"), dict[str, str](), 0
    if text.startswith(_METADATA):
        try:
            start = len(_METADATA) + (text[16:17] == " ")
            found, end = _decoder(int, strict=True).raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        if not _is_metadata(found) or text[end : end + 1] != "," or _SURROGATE.search(data, 0, end):
            return None
        metadata = found
    rows = plain_rows(text[end + 1 :].lstrip(" "), longest=_LONGEST_KEY)
    return None if rows is None or text[:1] != "{" else (metadata, rows)


def _any(data: bytes) -> tuple[dict[str, str], Rows]:
    """The same of every header. Raises ValueError."""
    entries = parse_json(data)
    if not isinstance(entries, dict):
        raise ValueError("the header is not a JSON object")
    metadata = entries.pop("__metadata__", {})
    if not _is_metadata(metadata):
        raise ValueError("__metadata__ is not a map of strings")
    found = [_entry(*item) for item in entries.items()]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(k for k, _, _ in found))}
    columns = np.array([(numbers[kind], *place) for kind, *place in found], np.int64)
    rows = Rows(list(entries), list(numbers), *columns.reshape(-1, 3).T)
    return metadata, rows.in_order()


def _is_metadata(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def header_length(prefix: bytes, *, file_size: int) -> int:
    """Length of the header's JSON, from a file's first bytes. Raises ValueError."""
    if file_size == 0:
        raise ValueError("an empty file")
    length = int.from_bytes(prefix[:8], "little")
    # A header of 640 bytes begins like a pickle: other kinds are looked for where it is none.
    if prefix[8:9] != b"{" or length > MOST_HEADER:
        meaning = other_file(prefix) or text_in_place(prefix)
        if meaning:
            raise ValueError(meaning)
    if len(prefix) < 8:
        raise ValueError("not a safetensors file: shorter than 8 bytes")
    if prefix[8:9] not in (b"{", b""):
        raise ValueError("not a safetensors file")
    if length > MOST_HEADER:
        raise ValueError(f"not a safetensors file: a header of {length} bytes")
    if 8 + length > file_size:
        raise ValueError(f"truncated: {8 + length} header bytes declared, {file_size} there")
    return length


def _read(fd: int, count: int, offset: int) -> bytes:
    data = memoryview(bytearray(count))
    return bytes(data[: fill(fd, data, offset)])


def read_header(fd: int, name: str) -> Header:
    """Read and check the header of an open file. Raises CheckpointError naming `name`."""
    try:
        file_size = os.fstat(fd).st_size
        length = header_length(_read(fd, 64, 0), file_size=file_size)
        return parse_header(_read(fd, length, 8), file_size=file_size)
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except OSError as error:
        raise InputOutputError(f"{name}: {error.strerror} while reading the header") from error
