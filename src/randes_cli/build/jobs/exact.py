"""Exact tensors: those that are not superposed, and the extra rows of resized embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.tally import Owner, Tally
from randes_cli.core.arrays import Raw
from randes_cli.core.convert import all_finite, values_of
from randes_cli.core.roles import exact_roles
from randes_cli.files.bank.keys import own_key
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.digests import digest
from randes_cli.files.source import Source, not_finite
from randes_cli.plan import WHOLE, Span, chunks
from randes_cli.specs import FLOAT_DTYPES, ITEM_SIZE, TensorInfo


@dataclass(frozen=True, slots=True)
class Exact:
    """One tensor to read, digest, and write under `key` (None: only read).

    Attributes:
        owner: whose fingerprint the digests belong to; None where other jobs read it for that.
        skip: leading rows to leave out (of a resized embedding).
        twin: the base, where the tensor may turn out to be equal to the base's.
        base: the base, whose infinities a task may have too.
        span: the chunks that are done.
    """

    source: Source
    name: str
    key: str | None
    owner: Owner | None
    skip: int = 0
    twin: Source | None = None
    base: Source | None = None
    span: Span = WHOLE

    @property
    def tensor(self) -> TensorInfo:
        """The whole tensor, as its source has it."""
        return self.source.tensors[self.name]

    @property
    def kept(self) -> TensorInfo:
        """What a bank keeps of it: all, or the rows that are not left out."""
        tensor, shape = self.tensor, self.tensor.shape
        if self.skip:
            shape = (shape[0] - self.skip // prod(shape[1:-1]), *shape[1:])
        return TensorInfo(str(self.key), tensor.dtype, shape)

    @property
    def nbytes(self) -> int:
        rows, cols = self.tensor.matrix
        return (rows - self.skip) * cols * ITEM_SIZE[self.tensor.dtype]


def run_exact(exact: Exact, writer: TensorSink, tally: Tally) -> int:
    """Read one tensor and tell the tally where it differs from its twin; returns bytes read.

    Raises CheckpointError for values of a task that are not finite and are kept, but for a
    constant (a mask of −∞) and what is as in the base: nothing is computed with them.
    """
    tensor, twin = exact.tensor, exact.twin
    rows, cols = tensor.matrix
    size, offset = ITEM_SIZE[tensor.dtype], exact.skip * cols
    equal = twin is not None and twin.tensors[exact.name] == tensor
    free = _may_be_infinite(exact)
    for number, rect in enumerate(chunks(rows - exact.skip, cols)):
        if not exact.span.holds(number):
            continue
        start = (offset + rect.start) * size
        raw = np.empty(rect.elements * size, np.uint8)
        exact.source.read(exact.name, start, raw)
        if equal and twin is not None:
            other = np.empty_like(raw)
            twin.read(exact.name, start, other)
            equal = bool(np.array_equal(raw, other))
        if not (equal or free):
            _check_finite(raw, exact, rect.start)
        value = digest(raw)
        if exact.key is not None:
            writer.write(exact.key, start - offset * size, raw)
            writer.set_digest(exact.key, number, value)
        if exact.owner is not None:
            tally.digested(number, {(exact.owner, exact.name): value})
    if not equal and isinstance(exact.owner, int):
        tally.differs([(exact.owner, exact.name)])
    return exact.nbytes


def look_at(exact: Exact) -> None:
    """Check the first chunk of a tensor as `run_exact` checks all: for a dry run."""
    if not _may_be_infinite(exact):
        _check_finite(_beginning(exact, exact.source), exact, 0)


def differs(exact: Exact) -> bool:
    """Whether the first chunk of a tensor is not its twin's."""
    twin = exact.twin
    return twin is None or not np.array_equal(
        _beginning(exact, exact.source), _beginning(exact, twin)
    )


def first_digest(exact: Exact) -> bytes:
    """The digest of the first chunk of what is kept of a tensor."""
    return digest(_beginning(exact, exact.source))


def _beginning(exact: Exact, source: Source) -> Raw:
    rows, cols = exact.tensor.matrix
    size, rect = ITEM_SIZE[exact.tensor.dtype], next(iter(chunks(rows - exact.skip, cols)), None)
    raw = np.empty(rect.elements * size if rect else 0, np.uint8)
    source.read(exact.name, exact.skip * cols * size, raw)
    return raw


def _may_be_infinite(exact: Exact) -> bool:
    if exact.key is None or exact.tensor.dtype not in FLOAT_DTYPES or exact.owner == "base":
        return True
    return exact.name in exact_roles({exact.name: exact.tensor})


def _check_finite(raw: Raw, exact: Exact, start: int) -> None:
    """Raise NotFinite for values that are neither finite nor the base's there, in any dtype."""
    base, tensor = exact.base, exact.tensor
    if all_finite(raw, tensor.dtype):
        return
    twin = None if base is None or exact.skip else base.tensors.get(exact.name)
    if base is None or twin is None or twin.shape != tensor.shape or twin.dtype not in FLOAT_DTYPES:
        raise not_finite(exact.name, exact.source)
    size = ITEM_SIZE[twin.dtype]
    other = np.empty(len(raw) // ITEM_SIZE[tensor.dtype] * size, np.uint8)
    base.read(exact.name, start * size, other)
    ours, theirs = values_of(raw, tensor.dtype), values_of(other, twin.dtype)
    alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    if not bool((np.isfinite(ours) | alike).all()):
        raise not_finite(exact.name, exact.source)


def exact_tensors(base: Source, participants: Sequence[Participant]) -> list[Exact]:
    """Every tensor that tasks keep exactly, with the base as twin where it may be equal to it."""
    made = []
    for one in participants:
        source = one.source
        for name in one.fit.exact:
            twin = base if base.tensors.get(name) == source.tensors[name] else None
            made.append(Exact(source, name, own_key(one.name, name), one.index, 0, twin, base))
        alike = one.fit.superposed is base.tensors
        for name, tensor in () if alike else one.fit.superposed.items():
            rows = base.tensors[name].matrix[0]
            if tensor.matrix[0] > rows:
                made.append(Exact(source, name, own_key(one.name, name), None, rows))
    return sorted(made, key=lambda exact: -ITEM_SIZE[exact.tensor.dtype])
