"""Tensors of a bank that a new bank keeps as they are, copied inside the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from randes_cli.errors import BankDamaged
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
class Copy:
    """Bytes of an open file that a new file takes over as they are."""

    source: int
    start: int
    nbytes: int
    target: int

    def into(self, out: OutputFile) -> int:
        """Copy them; returns their number. Raises BankDamaged where they are not there."""
        try:
            out.copy_from(self.source, self.start, self.nbytes, self.target)
        except EOFError:
            raise BankDamaged(f"{out.path}: the old bank was cut short while it was read") from None
        return self.nbytes

    def goes_on(self, other: Copy) -> bool:
        """Whether `other` begins where this ends, in both files."""
        ends = self.start + self.nbytes, self.target + self.nbytes
        return ends == (other.start, other.target)

    def pieces(self) -> Iterator[Copy]:
        """Consecutive copies of at most 16 MiB."""
        for at in range(0, self.nbytes, _PIECE):
            size = min(_PIECE, self.nbytes - at)
            yield Copy(self.source, self.start + at, size, self.target + at)


def place_copies(writer: BankWriter, old: BankFile, keys: Iterable[str]) -> list[Copy]:
    """Place tensors of an old bank in a new one; returns the bytes to copy for them."""
    starts, made = old.header.starts, list[Copy]()
    for key in keys:
        tensor = old.info(key)
        writer.place(tensor)
        digests = old.digests(key)
        for chunk in range(chunk_count(tensor)):
            at = DIGEST_BYTES * chunk
            writer.set_digest(key, chunk, digests[at : at + DIGEST_BYTES])
        copy = Copy(old.local.fd, starts[key], tensor.nbytes, writer.start(key))
        if made and made[-1].goes_on(copy):
            made[-1] = replace(made[-1], nbytes=made[-1].nbytes + copy.nbytes)
        else:
            made.append(copy)
    return [piece for copy in made for piece in copy.pieces()]


def copy_tensors(
    writer: BankWriter, old: BankFile, keys: Iterable[str], progress: Progress
) -> None:
    """Place tensors of an old bank in a new one and copy their bytes."""
    copies = place_copies(writer, old, keys)
    total = sum(copy.nbytes for copy in copies)
    for copy in copies:
        progress("copying", copy.into(writer.out), total)


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
