"""Tensors of a bank that a new bank keeps as they are, copied inside the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from randes_cli.files.atomic import atomic_file, check_space
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import CHECKS, MANIFEST
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import DIGEST_BYTES, chunk_count
from randes_cli.files.manifest import Manifest
from randes_cli.ops.parallel import Progress, no_progress
from randes_cli.specs import TensorInfo


def copy_tensors(
    writer: BankWriter, old: BankFile, keys: Iterable[str], progress: Progress
) -> None:
    """Place tensors of an old bank in a new one and copy their bytes, in long runs."""
    starts = old.header.starts
    runs: list[list[int]] = []
    for key in keys:
        tensor = old.info(key)
        writer.place(tensor)
        digests = old.digests(key)
        for chunk in range(chunk_count(tensor)):
            at = DIGEST_BYTES * chunk
            writer.set_digest(key, chunk, digests[at : at + DIGEST_BYTES])
        source, target = starts[key], writer.start(key)
        if runs and runs[-1][0] + runs[-1][2] == source and runs[-1][1] + runs[-1][2] == target:
            runs[-1][2] += tensor.nbytes
        else:
            runs.append([source, target, tensor.nbytes])
    total = sum(run[2] for run in runs)
    for source, target, count in runs:
        writer.out.copy_from(old.local.fd, source, count, target)
        progress("copying", count, total)


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
            writer = BankWriter(file, [*old.header.tensors.values(), *closing_tensors()])
            copy_tensors(writer, old, content_keys(old), progress)
            return writer.finish(change(old.manifest))
