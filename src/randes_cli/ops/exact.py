"""Exact copies: tensors that are not superposed, and the extra rows of resized embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from randes_cli.files.bank import BankWriter
from randes_cli.files.digests import digest
from randes_cli.ops.superpose import Source, Tally, is_finite, refuse_non_finite
from randes_cli.plan import chunks
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, TensorInfo


@dataclass(frozen=True, slots=True)
class Copy:
    """One tensor to read, digest, and write under `key` (None: only read).

    Attributes:
        who: participant (−1: the base) whose fingerprint the digests belong to, or None.
        skip: leading rows to leave out (of a resized embedding).
        twin: the base, where the tensor may turn out to be equal to the base's.
    """

    source: Source
    name: str
    key: str | None
    who: int | None
    skip: int = 0
    twin: Source | None = None


def run_copy(copy: Copy, writer: BankWriter, tally: Tally) -> int:
    """Do one copy; marks (who, name) in `tally.changed` when it differs from its twin."""
    tensor = copy.source.tensors[copy.name]
    rows, cols = tensor.matrix
    size, offset = ITEM_SIZE[tensor.dtype], copy.skip * cols
    equal, done = copy.twin is not None and copy.twin.tensors[copy.name] == tensor, 0
    for number, rect in enumerate(chunks(rows - copy.skip, cols)):
        start = (offset + rect.start) * size
        raw = np.empty(rect.elements * size, np.uint8)
        copy.source.read(copy.name, start, raw)
        done += len(raw)
        if tensor.dtype in FLOAT_DTYPES and not is_finite(raw, tensor.dtype):
            raise refuse_non_finite(copy.source, copy.name)
        if equal and copy.twin is not None:
            other = np.empty_like(raw)
            copy.twin.read(copy.name, start, other)
            equal = bool(np.array_equal(raw, other))
        value = digest(raw)
        if copy.key is not None:
            writer.write(copy.key, start - offset * size, raw)
            writer.set_digest(copy.key, number, value)
        if copy.who is not None:
            tally.digests.setdefault((copy.who, copy.name), {})[number] = value
    if not equal and copy.who is not None:
        tally.changed.add((copy.who, copy.name))
    return done


def own_tensor(tensor: TensorInfo, base: TensorInfo | None) -> TensorInfo:
    """What is kept of a task's tensor: all of it, or the rows past the base's."""
    if base is None:
        return tensor
    return TensorInfo(
        tensor.name, tensor.dtype, (tensor.shape[0] - base.shape[0], *tensor.shape[1:])
    )
