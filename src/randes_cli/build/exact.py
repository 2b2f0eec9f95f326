"""Exact copies: tensors that are not superposed, and the extra rows of resized embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from randes_cli.build.strips import (
    Participant,
    Source,
    Tally,
    is_finite,
    refuse_non_finite,
)
from randes_cli.files.bank_keys import own_key
from randes_cli.files.bank_writer import BankWriter
from randes_cli.files.digests import digest
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

    @property
    def nbytes(self) -> int:
        """Bytes of the source that are copied."""
        tensor = self.source.tensors[self.name]
        rows, cols = tensor.matrix
        return (rows - self.skip) * cols * ITEM_SIZE[tensor.dtype]


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


def owned_copies(base: Source, participants: Sequence[Participant]) -> list[Copy]:
    """Every tensor that tasks keep exactly, with the base as twin where it may be equal to it."""
    made = []
    for who, participant in enumerate(participants):
        source = participant.checkpoint
        for name in participant.fit.exact:
            twin = base if base.tensors.get(name) == source.tensors[name] else None
            made.append(Copy(source, name, own_key(participant.name, name), who, 0, twin))
        for name, tensor in participant.fit.superposed.items():
            rows = base.tensors[name].matrix[0]
            if tensor.matrix[0] > rows:
                made.append(Copy(source, name, own_key(participant.name, name), None, rows))
    return sorted(made, key=lambda copy: -ITEM_SIZE[copy.source.tensors[copy.name].dtype])


def kept_tensor(copy: Copy, base: Source) -> TensorInfo:
    """What a bank keeps for a copy: all of the tensor, or the rows past the base's."""
    tensor = copy.source.tensors[copy.name]
    shape = tensor.shape
    if copy.skip:
        shape = (shape[0] - base.tensors[copy.name].shape[0], *shape[1:])
    return TensorInfo(str(copy.key), tensor.dtype, shape)
