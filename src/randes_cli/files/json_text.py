"""JSON without spaces, in UTF-8: headers and tables of many tensors, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from itertools import accumulate
from typing import Any

from randes_cli.core.columns import Columns, columns
from randes_cli.files.plain_header import compact, quoted
from randes_cli.specs import Table, TensorInfo, Tensors

#: Tensors whose text is made together.
_TOGETHER = 2**12


def encode_header(
    tensors: Iterable[TensorInfo] | Table,
    metadata: Mapping[str, str],
    *,
    length: int | None = None,
) -> bytes:
    """The 8 length bytes and the JSON of a header whose data follow in the given order.

    The JSON is padded with spaces to `length`, or to the next multiple of 8.
    """
    listed = tensors if isinstance(tensors, Table) else Table((one.name, one) for one in tensors)
    out = BytesIO()  # it gives what it holds without a copy
    if length is not None:  # all the room at once: what grows leaves smaller rooms behind
        out.seek(7 + length)
        out.write(b" ")
        out.seek(0)
    out.write(bytes(8) + b"{")
    if metadata:
        more = b"," * (len(listed) > 0)
        out.write(f'"__metadata__":{compact(dict(metadata))}'.encode() + more)
    _write_entries(out, columns(listed))
    out.write(b"}")
    size = out.tell()
    out.write(b" " * (-size % 8 if length is None else 8 + length - size))
    size = out.tell() - 8
    out.seek(0)
    out.write(size.to_bytes(8, "little"))
    return out.getvalue()


def _write_entries(out: BytesIO, found: Columns) -> None:
    """The entries of tensors whose data lie end to end, some thousand at a time."""
    frames = [
        f':{{"dtype":"{kind.dtype}","shape":{compact([*kind.shape])},"data_offsets":['
        for kind in found.kinds
    ]
    sizes, position = [kind.nbytes for kind in found.kinds], 0
    for first in range(0, len(found.names), _TOGETHER):
        last = first + _TOGETHER
        names, kinds = found.names[first:last], found.kind_of[first:last].tolist()
        ends = [*accumulate(map(sizes.__getitem__, kinds), initial=position)]
        rows = zip(quoted(names), kinds, ends, ends[1:])  # noqa: B905 - one more
        text = ",".join([f"{n}{frames[k]}{start},{end}]}}" for n, k, start, end in rows])
        out.write((f",{text}" if first else text).encode())
        position = ends[-1]


def write_object(
    out: BytesIO, fields: Mapping[str, Any], others: Mapping[str, Callable[[], None]]
) -> None:
    """Write an object; the values of some fields are written by others."""
    out.write(b"{")
    for number, (key, value) in enumerate(fields.items()):
        out.write(f"{',' if number else ''}{compact(key)}:".encode())
        if key in others:
            others[key]()
        else:
            out.write(compact(value).encode())
    out.write(b"}")


def write_typed(out: BytesIO, tensors: Tensors) -> None:
    """Write an object of [dtype, shape] by name."""
    found = columns(tensors)
    kinds = [f":{compact([kind.dtype, [*kind.shape]])}" for kind in found.kinds]
    out.write(b"{")
    for first in range(0, len(found.names), _TOGETHER):
        names = found.names[first : first + _TOGETHER]
        rows = found.kind_of[first : first + _TOGETHER].tolist()
        text = ",".join(map(str.__add__, quoted(names), map(kinds.__getitem__, rows)))
        out.write((f",{text}" if first else text).encode())
    out.write(b"}")
