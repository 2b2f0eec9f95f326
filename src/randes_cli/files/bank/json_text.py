"""JSON without spaces, in UTF-8; of tables of many tensors in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from randes_cli.core.columns import columns
from randes_cli.files.plain_header import compact, quoted
from randes_cli.specs import Tensors

#: Tensors whose text is made together.
_TOGETHER = 2**12


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
