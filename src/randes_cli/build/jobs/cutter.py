"""Superpositions that are cut as soon as they are complete, one unit at a time.

Jobs write a unit's sums to memory where there is room, or to a spool file, as they would to a live
bank. When its last chunk is there their squares are, too, so that scales are fitted and all is cut,
and the room is free again.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from randes_cli.build.jobs.jobs import Job
from randes_cli.build.jobs.sums import Sum, fitted_to, scale_bytes
from randes_cli.build.jobs.tally import Tally
from randes_cli.build.jobs.together import Many
from randes_cli.build.jobs.waiting import Arena, Bundle, Waiting
from randes_cli.build.jobs.writing import SPAN, write_codes
from randes_cli.core.agreement import Agreement
from randes_cli.core.seal_passes import Scales
from randes_cli.files.bank.container import Container
from randes_cli.files.bank.keys import sum_key
from randes_cli.files.bank.tensor_sink import TensorSink
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.spool import Spool
from randes_cli.plan import Unit


@dataclass(frozen=True, slots=True)
class Cuts:
    """Superpositions that are cut, of which groups, and to how many bits."""

    sums: Sequence[Sum]
    groups: Sequence[int]
    bits: int
    unit_of: Mapping[str, Unit]


class Cutter(TensorSink):
    """A sink for jobs that keeps from the bank the sums that are cut.

    Attributes:
        found: of each sum that is cut, by key, how its codes agree with it, and the part that
            values count in.
    """

    def __init__(
        self,
        writer: TensorSink,
        layout: Cuts,
        arena: Arena,
        spool: Spool,
        tally: Tally,
        width: Callable[[Unit], int],
    ) -> None:
        self.writer, self.layout, self.tally = writer, layout, tally
        self.arena, self.spool = arena, spool
        self.width = width
        self.found: dict[str, tuple[Agreement, int]] = {}
        self._cut = {one.key: one for one in layout.sums}
        self._unit_of = layout.unit_of
        self._bundles: list[Sequence[Unit]] = []
        self._bundle_of: dict[Unit, int] = {}
        self._left: Counter[int] = Counter()
        self._open: dict[int, Bundle] = {}
        self._spans = deque[tuple[Bundle, Waiting, int]]()
        self._lock = threading.Lock()

    def takes(self, key: str) -> bool:
        """Whether a superposition is cut: it has no digests then."""
        return key in self._cut

    # As a sink

    def has_bytes(self, key: str) -> bool:
        """None has: all is made anew."""
        return False

    @contextmanager
    def file_of(self, key: str) -> Iterator[tuple[OutputFile, int]]:
        if key in self._cut:
            yield self._place(key)
            return
        with self.writer.file_of(key) as found:
            yield found

    @contextmanager
    def files_of(self, keys: Sequence[str]) -> Iterator[list[tuple[OutputFile, int]]]:
        with self.writer.files_of([key for key in keys if key not in self._cut]) as found:
            left = iter(found)
            yield [self._place(key) if key in self._cut else next(left) for key in keys]

    def _place(self, key: str) -> tuple[OutputFile, int]:
        waiting = self._waiting(key)
        if not isinstance(waiting.place, OutputFile):
            raise AssertionError(key)
        return waiting.place, waiting.start

    def waiting(self, key: str) -> Waiting | None:
        """A superposition that waits to be cut."""
        return self._waiting(key) if key in self._cut else None

    def write(self, key: str, start: int, data: object) -> None:
        waiting = self.waiting(key)
        memory = None if waiting is None else waiting.memory
        if memory is None:
            super().write(key, start, data)
            return
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        memory.data[start : start + len(view)] = view

    def container_of(self, key: str) -> Container:
        return self.writer.container_of(key)

    def arrived(self, key: str, chunks: Iterable[int]) -> None:
        self.writer.arrived(key, chunks)

    def set_digest(self, key: str, chunk: int, value: bytes) -> None:
        """Record the digest of one chunk: of a sum that is cut nobody asks for it."""
        if key not in self._cut:
            super().set_digest(key, chunk, value)

    def _waiting(self, key: str) -> Waiting:
        """One of the sums of a unit: room for them is taken when the first is written."""
        number = self._bundle_of[self._unit_of[self._cut[key].tensor.name]]
        with self._lock:
            found = self._open.get(number)
            if found is None:
                found = self._open[number] = self._begun(self._bundles[number])
            return found.sums[key]

    def _begun(self, units: Sequence[Unit]) -> Bundle:
        sums = [
            (self._cut[key], self.width(unit))
            for unit in units
            for key in (sum_key(group, n) for group in self.layout.groups for n in unit.names)
            if key in self._cut
        ]
        return Bundle.begun(sums, self.arena, self.spool)

    # As jobs are done

    def begin(self, jobs: Sequence[Job | Many]) -> None:
        """These jobs are to come."""
        self._bundles, self._bundle_of, self._left = [], {}, Counter()
        for job in jobs:
            units = job.units if isinstance(job, Many) else [job.unit]
            if units[0] not in self._bundle_of:
                self._bundle_of |= dict.fromkeys(units, len(self._bundles))
                self._bundles.append(units)
            self._left[self._bundle_of[units[0]]] += 1

    def done(self, job: Job | Many) -> None:
        """A job has written its part of the sums; help to cut those that are complete."""
        units = job.units if isinstance(job, Many) else [job.unit]
        number = self._bundle_of[units[0]]
        opened = self._open.get(number)
        if opened is not None and isinstance(job, Many):
            for one in opened.sums.values():
                one.measure(0, one.sum.elements)
        elif opened is not None and isinstance(job, Job):
            self._measure(opened, job)
        with self._lock:
            self._left[number] -= 1
            opened = None if self._left[number] else self._open.pop(number, None)
        if opened is not None:
            self._complete(opened)
        while (span := self._next_span()) is not None:
            self._write_span(*span)

    def _measure(self, opened: Bundle, job: Job) -> None:
        """Add up the squares of a job's part of each sum, where that is not done."""
        inside = job.rect.above(job.unit.rows)
        if inside is None or job.unit in self.tally.peaks:
            return
        for part, position in job.sums():
            one = opened.sums.get(sum_key(part.group, job.unit.names[position]))
            if one is not None and inside.start not in one.measured:
                ends = inside.start, inside.start + inside.elements
                one.measure(*map(one.sum.share.place, ends))

    def _complete(self, opened: Bundle) -> None:
        """Fit the scales of sums, and have them cut; those that overflowed come again."""
        spans, bits = list[tuple[Bundle, Waiting, int]](), self.layout.bits
        for key, one in opened.sums.items():
            if self._unit_of[one.sum.tensor.name] in self.tally.peaks:
                continue
            fitted = fitted_to(one.squares, one.sum.share, bits)
            one.scales = Scales.of(fitted, one.sum.share, bits)
            self.found[key] = Agreement(sum(one.squares[0].tolist())), one.scales.part
            self.writer.write_whole(one.sum.sealed(bits)[0], scale_bytes(*fitted))
            spans += [(opened, one, start) for start in range(0, one.sum.elements, SPAN)]
        opened.left = len(spans)
        with self._lock:
            self._spans += spans
        if not spans:
            opened.end(self.arena, self.spool)

    def _next_span(self) -> tuple[Bundle, Waiting, int] | None:
        with self._lock:
            return self._spans.popleft() if self._spans else None

    def _write_span(self, opened: Bundle, one: Waiting, start: int) -> None:
        key, bits, scales = one.sum.key, self.layout.bits, one.scales
        if scales is None:
            raise AssertionError(key)
        count = min(SPAN, one.sum.elements - start)
        pieces = (units for _, units in one.pieces(start, start + count))
        near = write_codes(self.writer, key, (start, count), bits, pieces, scales)
        with self._lock:
            agreement, part = self.found[key]
            self.found[key] = agreement.joined(near), part
            opened.left -= 1
            free = not opened.left
        if free:
            opened.end(self.arena, self.spool)
