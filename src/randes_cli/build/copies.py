"""Tensors of a bank that a new bank keeps as they are, copied inside the kernel and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from randes_cli.errors import BankDamaged
from randes_cli.files.atomic import OutputFile, atomic_file, check_space
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import CHECKS, MANIFEST, parse_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import DIGEST_BYTES, hasher
from randes_cli.files.location import Place
from randes_cli.files.manifest import Manifest
from randes_cli.plan import chunks
from randes_cli.specs import TensorInfo
from randes_cli.workers import Progress, no_progress

#: Bytes that one job copies, at the most where chunks are smaller; that are read back at once.
_PIECE = 2**24
_READ = 2**20


class Chunk(NamedTuple):
    """A chunk of a tensor that stays: of which tensor, how long, and its recorded digest."""

    key: str
    nbytes: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """Consecutive chunks of an old bank that a new file takes over as they are."""

    old: BankFile
    start: int
    target: int
    chunks: list[Chunk]

    @property
    def nbytes(self) -> int:
        """Bytes that are copied."""
        return sum(chunk.nbytes for chunk in self.chunks)

    def into(self, out: OutputFile) -> int:
        """Copy them, and check what has arrived; returns their number. Raises BankDamaged.

        The kernel copies, where it can, without showing what: the new file is read back, from
        memory as a rule. So no edit carries damage over under a digest that nobody looked at.
        """
        size, place = self.nbytes, self.target
        if self.old.local is None:
            self._bring(out)
        else:
            out.copy_from(self.old.local.fd, self.start, size, place)
        buffer = np.empty(min(_READ, size), np.uint8)
        for chunk in self.chunks:
            running = hasher()
            for at in range(0, chunk.nbytes, _READ):
                part = buffer[: min(_READ, chunk.nbytes - at)]
                out.read_at(part, place + at)
                running.update(part.data)
            if running.digest() != chunk.digest:
                raise BankDamaged(
                    f"{self.old.path}: tensor {chunk.key!a} is damaged (see: randes verify)"
                )
            place += chunk.nbytes
        return size

    def _bring(self, out: OutputFile) -> None:
        """Copy them from elsewhere, in one request."""
        data = np.empty(self.nbytes, np.uint8)
        self.old.file.read_at(self.start, data)
        out.write_at(data, self.target)


def place_copies(writer: BankWriter, old: BankFile, keys: Iterable[str]) -> list[Copy]:
    """Place tensors of an old bank in a new one; returns what to copy for them."""
    made = list[Copy]()
    end = room = 0
    for key in keys:
        tensor, digests = old.info(key), old.digests(key)
        writer.place(tensor)
        start, target = old.header.starts[key], writer.start(key)
        size = tensor.nbytes // max(1, tensor.elements)
        for number, rect in enumerate(chunks(*tensor.matrix)):
            recorded = digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)]
            writer.set_digest(key, number, recorded)
            chunk = Chunk(key, rect.elements * size, recorded)
            goes_on = made and (start, target) == (end, made[-1].target + end - made[-1].start)
            if not goes_on or chunk.nbytes > room:
                made.append(Copy(old, start, target, []))
                room = _PIECE
            made[-1].chunks.append(chunk)
            start, target, room = start + chunk.nbytes, target + chunk.nbytes, room - chunk.nbytes
            end = start
    return made


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
    made = ("manifest", "checks", "align")
    return [key for key in bank.header.tensors if parse_key(key).kind not in made]


def closing_tensors() -> list[TensorInfo]:
    """The longest that a manifest and a table of digests may be, for the header's room."""
    return [TensorInfo(MANIFEST, "U8", (2**40,)), TensorInfo(CHECKS, "U8", (2**40,))]


def rewrite_manifest(
    path: Place, change: Callable[[Manifest], Manifest], *, progress: Progress = no_progress
) -> int:
    """Replace a bank by itself with another manifest, in one commit; return its bytes.

    The caller holds the lock. Raises BankDamaged, NoSpace, InputOutputError.
    """
    with BankFile(path) as old:
        check_space(path, old.header.file_size)
        with atomic_file(path, force=True) as file:
            file.reserve(old.header.file_size)
            writer = BankWriter(file, [*old.header.tensors.values(), *closing_tensors()])
            copy_tensors(writer, old, content_keys(old), progress)
            return writer.finish(change(old.manifest))
