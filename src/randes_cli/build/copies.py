"""Tensors of a bank that a new bank keeps as they are, copied inside the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from randes_cli.files.atomic import OutputFile, atomic_file, check_space
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import CHECKS, MANIFEST
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.manifest import Manifest
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress, no_progress

#: Bytes that one job copies.
_PIECE = 2**24


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of an open file that a new file takes over as they are."""

    source: int
    start: int
    nbytes: int
    target: int

    def copy(self, out: OutputFile) -> None:
        """Copy them."""
        out.copy_from(self.source, self.start, self.nbytes, self.target)


def place_copies(writer: BankWriter, old: BankFile, keys: Iterable[str]) -> list[Run]:
    """Place tensors of an old bank in a new one; returns the runs of bytes to copy for them."""
    starts, runs = old.header.starts, list[Run]()
    for key in keys:
        tensor = old.info(key)
        writer.place(tensor)
        digests = old.digests(key)
        for chunk in range(chunk_count(tensor)):
            at = DIGEST_BYTES * chunk
            writer.set_digest(key, chunk, digests[at : at + DIGEST_BYTES])
        here = Run(old.local.fd, starts[key], tensor.nbytes, writer.start(key))
        if runs and _follows(runs[-1], here):
            runs[-1] = replace(runs[-1], nbytes=runs[-1].nbytes + here.nbytes)
        else:
            runs.append(here)
    return [piece for run in runs for piece in _pieces(run)]


def _follows(run: Run, other: Run) -> bool:
    return (run.start + run.nbytes, run.target + run.nbytes) == (other.start, other.target)


def _pieces(run: Run) -> Iterator[Run]:
    for at in range(0, run.nbytes, _PIECE):
        yield Run(run.source, run.start + at, min(_PIECE, run.nbytes - at), run.target + at)


def copy_tensors(
    writer: BankWriter, old: BankFile, keys: Iterable[str], progress: Progress
) -> None:
    """Place tensors of an old bank in a new one and copy their bytes."""
    runs = place_copies(writer, old, keys)
    total = sum(run.nbytes for run in runs)
    for run in runs:
        run.copy(writer.out)
        progress("copying", run.nbytes, total)


def content_keys(bank: BankFile) -> list[str]:
    """Every tensor of a bank but those that a writer makes anew."""
    made = (MANIFEST, CHECKS)
    return [key for key in bank.header.tensors if key not in made and not key.startswith("align/")]


def closing_tensors() -> list[TensorInfo]:
    """The longest that a manifest and a table of digests may be, for the header's room."""
    return [TensorInfo(MANIFEST, "U8", (2**40,)), TensorInfo(CHECKS, "U8", (2**40,))]


def rewrite_manifest(
    path: Path, change: Callable[[Manifest], Manifest], *, progress: Progress = no_progress
) -> int:
    """Replace a bank by itself with another manifest, in one commit; return its bytes.

    The caller holds the lock. Raises BankDamaged, NoSpace, InputOutputError.
    """
    with BankFile(path) as old:
        check_space(path.parent, old.header.file_size)
        with atomic_file(path, force=True) as file:
            file.reserve(old.header.file_size)
            writer = BankWriter(file, [*old.header.tensors.values(), *closing_tensors()])
            copy_tensors(writer, old, content_keys(old), progress)
            return writer.finish(change(old.manifest))
