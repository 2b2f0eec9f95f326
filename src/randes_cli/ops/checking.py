"""The bytes of a bank against their digests, a chunk or many small tensors at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from randes_cli.core.arrays import Bools, Raw
from randes_cli.core.columns import some_columns
from randes_cli.core.convert import all_finite
from randes_cli.errors import BankDamaged, CheckpointError, InputOutputError
from randes_cli.files.bank.checks import possible_statistics
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import parse_key
from randes_cli.files.digests import chunk_count, digest
from randes_cli.plan import chunks
from randes_cli.specs import ITEM_SIZE, RunOptions, TensorInfo
from randes_cli.workers import Progress, run_parallel, thread_count

#: What a bad sector raises, and a file that was cut off meanwhile.
UNREADABLE = (InputOutputError, BankDamaged, CheckpointError)
#: Bytes of a tensor that is read with its neighbours, between two of them, and of such a read.
_SMALL, _GAP, _AT_ONCE = 2**14, 2**10, 20
#: Bytes of the buffer of a thread.
_BUFFER = 2**22


class _Chunk(NamedTuple):
    """One chunk of a tensor: its number, and where its bytes are."""

    key: str
    number: int
    start: int
    nbytes: int


class _Run(NamedTuple):
    """Some small tensors that lie one after the other: their places among all that are checked."""

    first: int
    stop: int


def check_keys(
    bank: BankFile, keys: Sequence[str], run: RunOptions, total: int, progress: Progress
) -> set[str]:
    """Which of these tensors, of `total` bytes, are not as they were written."""
    check = _Check(bank, keys)
    run_parallel(
        list(check.jobs()),
        threading.local,
        check.work,
        threads=thread_count(run.threads, bank.header.tensors.values(), far=bank.far),
        phase="verifying",
        total=total,
        progress=progress,
    )
    return check.damaged


class _Check:
    """What is checked, and what was found damaged."""

    def __init__(self, bank: BankFile, keys: Sequence[str]) -> None:
        self.bank, self.keys, self.damaged = bank, keys, set[str]()
        found = some_columns(bank.header.tensors, keys)
        self.nbytes, self.counts = found.of(attrgetter("nbytes")), found.of(chunk_count)
        self.files, self.starts = bank.store.places(keys)

    def jobs(self) -> Iterator[_Chunk | _Run]:
        """In the order of the keys."""
        small = (self.counts == 1) & (self.nbytes <= _SMALL) & self._plain
        gaps = self.starts[1:] - (self.starts + self.nbytes)[:-1]
        joined = small[1:] & small[:-1] & (self.files[1:] == self.files[:-1])
        joined &= (gaps >= 0) & (gaps <= _GAP)
        joined &= self.starts[1:] >> _AT_ONCE == self.starts[:-1] >> _AT_ONCE
        cuts = np.flatnonzero(~joined) + 1
        for first, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(self.keys)], strict=True):
            if stop - first > 1:
                yield _Run(first, stop)
            else:
                yield from self._chunks(first, stop)

    @cached_property
    def _plain(self) -> Bools:
        """Tensors of which nothing is asked but their digests."""
        odd = ("scale/", "stats/")
        return np.array([not key.startswith(odd) for key in self.keys], np.bool_)

    def _chunks(self, first: int, stop: int) -> Iterator[_Chunk]:
        for key in self.keys[first:stop]:
            tensor = self.bank.info(key)
            size = ITEM_SIZE[tensor.dtype]
            for number, rect in enumerate(chunks(*tensor.matrix)):
                yield _Chunk(key, number, rect.start * size, rect.elements * size)

    def work(self, state: threading.local, job: _Chunk | _Run) -> int:
        """Check some bytes; how many there are."""
        if isinstance(job, _Chunk):
            return self._chunk(state, job)
        if not self._are_sound(state, job):
            for chunk in self._chunks(*job):  # each by itself, to tell which
                self._chunk(state, chunk)
        return int(self.nbytes[slice(*job)].sum())

    def _chunk(self, state: threading.local, job: _Chunk) -> int:
        bank, key = self.bank, job.key
        raw = _buffer(state, job.nbytes)
        try:
            bank.read_into(key, job.start, raw)
        except UNREADABLE:
            self.damaged.add(key)
            return job.nbytes
        if digest(raw) != bank.digest(key, job.number) or not _possible(bank.info(key), raw):
            self.damaged.add(key)
        return job.nbytes

    def _are_sound(self, state: threading.local, run: _Run) -> bool:
        some = slice(*run)
        begin = self.starts[some] - self.starts[run.first]
        ends = begin + self.nbytes[some]
        raw = _buffer(state, int(ends[-1]))
        try:
            self.bank.read_into(self.keys[run.first], 0, raw)
        except UNREADABLE:
            return False
        pairs, view = zip(begin.tolist(), ends.tolist(), strict=True), raw.data
        made = b"".join([digest(view[start:stop]) for start, stop in pairs])
        return made == self.bank.store.only_digests(self.keys[some])


def _buffer(state: threading.local, count: int) -> Raw:
    """Some of a thread's memory."""
    buffer: Raw | None = getattr(state, "buffer", None)
    if buffer is None or len(buffer) < count:
        buffer = state.buffer = np.empty(max(count, _BUFFER), np.uint8)
    return buffer[:count]


def _possible(info: TensorInfo, raw: Raw) -> bool:
    """Whether scales and statistics are such as a writer makes: a forger's digests are right."""
    kind = parse_key(info.name).kind
    if kind == "scale":
        return all_finite(raw, info.dtype)
    if kind == "stats" and info.dtype == "F64":
        return possible_statistics(info.name, raw.view(np.float64))
    return True
