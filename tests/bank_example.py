"""The worked example of docs/bank-format.md: a bank small enough to print."""

from __future__ import annotations

import struct
from pathlib import Path

from randes_cli import RunOptions, TaskInput, pack
from randes_cli.files.json_text import encode_header
from randes_cli.specs import TensorInfo

#: Values of the one tensor `w`, 2 × 3 float32: all are multiples of 1/8.
BASE = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
TASKS = {"a": (1.5, 2.0, 3.0, 4.0, 4.5, 6.0), "b": (1.0, 2.25, 3.0, 4.0, 5.0, 5.75)}


def _write(path: Path, values: tuple[float, ...]) -> None:
    header = encode_header([TensorInfo("w", "F32", (2, 3))], {})
    path.write_bytes(header + struct.pack("<6f", *values))


def example_bank(folder: Path) -> bytes:
    """The bytes of the example, packed in `folder` with default options."""
    _write(folder / "base.safetensors", BASE)
    for name, values in TASKS.items():
        _write(folder / f"{name}.safetensors", values)
    inputs = [TaskInput(name, str(folder / f"{name}.safetensors")) for name in TASKS]
    out = folder / "example.randes"
    pack(str(folder / "base.safetensors"), inputs, out, run=RunOptions(threads=1))
    return out.read_bytes()


def hex_lines(data: bytes) -> list[str]:
    """The lines that ``hexdump -C`` prints: equal lines after the first become one ``*``."""
    made: list[str] = []
    previous = b""
    for start in range(0, len(data), 16):
        line = data[start : start + 16]
        if line == previous:
            if made[-1] != "*":
                made.append("*")
            continue
        previous = line
        left, right = (" ".join(f"{b:02x}" for b in part) for part in (line[:8], line[8:]))
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in line)
        made.append(f"{start:08x}  {left:<23}  {right:<23}  |{text}|")
    return [*made, f"{len(data):08x}"]
