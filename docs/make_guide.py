"""Makes what docs/guide.md shows, by the very commands beside it; `make docs` runs it.

    python docs/make_guide.py              pictures and outputs, from the kept statistics
    python docs/make_guide.py BANK         first keep the statistics of another bank

The guide's bank is that of examples/digits. Kept is the bank itself with zeros for the values of
the superposition, and for each of the base's tensors its root mean square: header, manifest,
statistics and lengths are all that the commands here read, and the rest compresses to nothing.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from randes_cli.cli.main import run
from randes_cli.files.bank.file import BankFile

DOCS = Path(__file__).parent
GUIDE, KEPT, NAME = DOCS / "guide.md", DOCS / "images" / "digits-statistics.xz", "digits.randes"
#: Exit codes from here on are faults of ours.
_INTERNAL = 70
#: Commands, each with what it prints; and a command with its picture.
_OUTPUT = re.compile(r"```console\n(\$ randes .*?)```\n", re.S)
_COMMAND = re.compile(r"^\$ (randes [^\n]+)\n", re.M)
_PICTURE = re.compile(r"```sh\n(randes [^\n]+ -o (images/[\w-]+\.svg))\n```")


def keep(bank: Path) -> bytes:
    """A bank's file, compressed: zeros for superpositions, one value for each base tensor."""
    data = bytearray(bank.read_bytes())
    with BankFile(bank) as file:
        for key, tensor in file.header.tensors.items():
            start = file.header.starts[key]
            values = data[start : start + tensor.nbytes]
            if key.startswith("sum/"):
                data[start : start + tensor.nbytes] = bytes(tensor.nbytes)
            elif key.startswith("base/") and tensor.dtype == "F32" and tensor.elements:
                mean = np.sqrt(np.square(np.frombuffer(values, "<f4"), dtype="f8").mean())
                data[start : start + tensor.nbytes] = np.float32(mean).tobytes() * tensor.elements
    return lzma.compress(bytes(data), preset=9)


def randes(line: str, folder: Path) -> str:
    """What a command prints, run in `folder`; of one that is refused, the line that says why."""
    out, err, here = StringIO(), StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run(shlex.split(line)[1:])
    finally:
        os.chdir(here)
    if code >= _INTERNAL:
        raise SystemExit(f"{line}: exit code {code}")
    shown = (err if code else out).getvalue()
    return "\n".join(text.rstrip() for text in shown.splitlines()) + "\n"


def block(text: str, folder: Path) -> str:
    """A block of commands with what they print now."""
    made = "".join(f"$ {line}\n{randes(line, folder)}" for line in _COMMAND.findall(text))
    return f"```console\n{made}```\n"


def make(folder: Path) -> tuple[str, dict[str, bytes]]:
    """The guide with fresh outputs, and its pictures by name; `folder` is scratch."""
    (folder / NAME).write_bytes(lzma.decompress(KEPT.read_bytes()))
    (folder / "images").mkdir()
    with BankFile(folder / NAME) as file:  # the models lie beside it, as far as commands look
        for model in (file.manifest.base, *file.manifest.tasks):
            (folder / model.source).touch()
    text = GUIDE.read_text("utf-8")
    pictures = {}
    for line, name in _PICTURE.findall(text):
        randes(line, folder)
        pictures[name] = (folder / name).read_bytes()
    fresh = _OUTPUT.sub(lambda found: block(found[1], folder), text)
    return fresh, pictures


def main() -> None:
    """Write guide and pictures."""
    os.environ.pop("COLUMNS", None)
    if len(sys.argv) > 1:
        KEPT.write_bytes(keep(Path(sys.argv[1])))
    with TemporaryDirectory() as folder:
        text, pictures = make(Path(folder))
    GUIDE.write_text(text, "utf-8")
    for name, data in pictures.items():
        (DOCS / name).write_bytes(data)


if __name__ == "__main__":
    main()
