"""Many small units of a pass at a time: their steps are columns, and one call does them all.

A job of its own costs Python half a millisecond, and a tensor of a few kilobytes next to nothing.
What is not as plain as this (a share, a resized tensor, a file elsewhere, values that do not fit)
is done by `strips`, job by job, with the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter

import numpy as np

from randes_cli.build.inputs.participants import Participant
from randes_cli.build.jobs.jobs import Files, Part, nothing_waits, unit_jobs
from randes_cli.build.jobs.strips import run_job
from randes_cli.build.jobs.tally import ManySums, Owner
from randes_cli.build.jobs.together import Many
from randes_cli.core.arrays import I64, Array, Bools, Raw, address
from randes_cli.core.columns import Columns, some_columns
from randes_cli.core.compiled.run import DTYPES, RUNS, SIGNS, STEPS, Kind
from randes_cli.core.kernel import Kernel
from randes_cli.core.signs import random_joined
from randes_cli.files.bank.keys import base_key, sum_key
from randes_cli.files.base import bank_places
from randes_cli.files.digests import DIGEST_BYTES, each_digest
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.source import Source, places_of
from randes_cli.specs import ITEM_SIZE, Tensors


def run_many(files: Files, kernel: Kernel, strip: int, many: Many) -> int:
    """Do them; return the input bytes that were read. Raises what `run_job` raises."""
    run = _Run(files, many)
    done = run.do(kernel)
    read = int(run.nbytes[done].sum())
    for at in np.flatnonzero(~done).tolist():
        unit = many.units[at]
        if unit in files.again:
            continue  # of one of many layers all is done again, once
        files.again.add(unit)
        for job in unit_jobs(unit, many.parts[at]):
            read += run_job(files, kernel, strip, job)
    return read


class _Run:
    """One call: a row a unit, a column a step."""

    def __init__(self, files: Files, many: Many) -> None:
        self.files, self.many = files, many
        self.names = many.names
        #: Steps of a delta: where tasks move layers, the base's is read before it.
        self.each = 1 + (many.units[0].layers > 1 and files.base is not None)
        self.width = 1 + sum(2 + self.each * len(part.members) for part in many.parts[0])
        self.steps = np.zeros((len(self.names), self.width), STEPS)
        self.steps["from"] = self.steps["into"] = -1
        self.elements = np.array([u.rows * u.cols for u in many.units], np.int64)
        self.flips = np.array([unit.form.flip_bytes for unit in many.units], np.int64)
        self._known: dict[tuple[int, int], tuple[Tensors, Columns]] = {}
        self.fits = np.ones(len(self.names), bool)
        self.nbytes = np.zeros(len(self.names), np.int64)
        self._theirs: dict[int, tuple[str, ...]] = {}
        self._bits: list[Raw] = []
        self._written: list[OutputFile] = []

    def do(self, kernel: Kernel) -> Bools:
        """Which units came to their end; what is told of them is told."""
        with ExitStack() as opened:
            self._base(opened)
            for number, column, _ in self._groups():
                self._group(number, column, opened)
            held = np.concatenate([*self._bits, np.zeros(1, np.uint8)])
            self.steps["bits"] += np.uint64(address(held))
            if self._written:
                opened.enter_context(self._written[0].written_by())
            runner = kernel.runner if self.fits.any() else None
            found = runner.run_many(self._runs(), self.steps) if runner else None
            if found is None:
                return np.zeros(len(self.names), bool)
            for out in dict.fromkeys(self._written):
                out.sent(int(self.nbytes.sum()) // max(1, self.width))
        made, ended = found
        done: Bools = ended & self.fits
        self._tell(made, np.flatnonzero(done))
        return done

    def _groups(self) -> Iterator[tuple[int, int, Part]]:
        """Each superposition's number, first column, and a part that stands for all units'."""
        column = 1
        for number, part in enumerate(self.many.parts[0]):
            yield number, column, part
            column += 2 + self.each * len(part.members)

    # Steps

    def _runs(self) -> Array:
        units, runs = self.many.units, np.zeros(len(self.names), RUNS)
        runs["count"], runs["cols"] = self.elements, [unit.cols for unit in units]
        runs["rows"], runs["view_cols"] = np.array([unit.view for unit in units]).T
        runs["kind"] = SIGNS[units[0].signs]
        runs["count"][~self.fits] = 0
        return runs

    def _columns(self, tensors: Tensors, names: Sequence[str]) -> Columns:
        """The tensors of some names; tasks with one header have the same."""
        key = id(tensors), id(names)
        if key not in self._known:
            self._known[key] = tensors, some_columns(tensors, names)
        return self._known[key][1]

    def _source(self, column: int, source: Source, names: Sequence[str]) -> None:
        """Where a column's tensors lie; those that are elsewhere are left out."""
        steps, found = self.steps[:, column], self._columns(source.tensors, names)
        steps["from"], steps["at"] = places_of(source, names).T
        steps["dtype"] = found.of(lambda tensor: DTYPES.get(tensor.dtype, -1))
        self.fits &= (steps["from"] >= 0) & (steps["dtype"] >= 0)
        self.nbytes += self.elements * found.of(lambda tensor: ITEM_SIZE[tensor.dtype])

    def _target(self, column: int, keys: Sequence[str], opened: ExitStack) -> None:
        """Where a column's results go."""
        files, steps = self.files, self.steps[:, column]
        filed = list(range(len(keys)))
        if files.waiting is not nothing_waits:
            held = [None if one is None else one.memory for one in map(files.waiting, keys)]
            steps["memory"] = [0 if memory is None else address(memory) for memory in held]
            filed = [at for at, memory in enumerate(held) if memory is None]
        places = opened.enter_context(files.writer.files_of([keys[at] for at in filed]))
        written = {out: out.fd for out in dict.fromkeys(out for out, _ in places)}
        steps["into"][filed] = [written[out] for out, _ in places]
        steps["to"][filed] = [at for _, at in places]
        self._written += written

    def _base(self, opened: ExitStack) -> None:
        self.steps["kind"][:, 0] = Kind.BASE
        if self.files.base is None:
            return
        self._source(0, self.files.base, self.names)
        if self.files.write_base:
            self._target(0, [base_key(name) for name in self.names], opened)

    def _group(self, number: int, column: int, opened: ExitStack) -> None:
        """The steps of one superposition of every unit."""
        parts = [parts[number] for parts in self.many.parts]
        grids = [part.step for part in parts if part.step is not None]
        keys, bits = [sum_key(parts[0].group, n) for n in self.names], [g.bits for g in grids]
        begin, last = self.steps[:, column], self._last(column, parts[0])
        begin["kind"], begin["dtype"] = Kind.BEGIN, bits
        if parts[0].kept and self.files.old is not None:
            begin["from"], begin["at"] = bank_places(self.files.old, keys).T
            self.fits &= begin["from"] >= 0
        exponents = np.array([grid.exponent for grid in grids], np.int64)
        for at, member in self._members(column, parts[0]):
            self._delta(at, member, exponents)
        self.steps["kind"][:, last], self.steps["dtype"][:, last] = Kind.STORE, bits
        self._target(last, keys, opened)

    def _last(self, column: int, part: Part) -> int:
        """The column where a superposition is stored that begins at one."""
        return column + 1 + self.each * len(part.members)

    def _members(self, column: int, part: Part) -> Iterator[tuple[int, Participant]]:
        """The members of a superposition that begins at a column, and those of their deltas."""
        return zip(range(column + self.each, self._last(column, part), self.each), part.members)  # noqa: B905

    def _delta(self, column: int, member: Participant, exponents: I64) -> None:
        names = self._moved(member)
        ours = self._columns(member.fit.superposed, names)
        self.fits &= ours.of(attrgetter("elements")) == self.elements
        if self.each > 1 and self.files.base is not None:
            read = self.nbytes.copy()
            self._source(column - 1, self.files.base, names)
            self.nbytes = read  # it is its own position's, too
            self.steps["kind"][:, column - 1] = Kind.BASE
            self.steps["layer"][:, column - 1 : column + 1] = 1
        self._source(column, member.source, names)
        steps = self.steps[:, column]
        steps["kind"], steps["scale"] = Kind.ADD, member.sign * np.ldexp(1.0, -exponents)
        flips = random_joined("signs", member.seed, self.names, self.flips)
        first = sum(map(len, self._bits))
        steps["bits"] = (first + np.cumsum(self.flips) - self.flips).astype(np.uint64)
        self._bits.append(flips)

    # What was found

    def _tell(self, made: Array, done: I64) -> None:
        """Tell the tally and the writer what the units came to that are done."""
        names = _some(self.names, done)
        if self.files.base is not None:
            digests = self._read("base", 0, made, done, names)
            if self.files.write_base:
                self.files.writer.set_only_digests([base_key(name) for name in names], digests)
        for _, column, part in self._groups():
            keys = [sum_key(part.group, name) for name in names]
            self._check_old(keys, part, _digests(made[done, column]))
            for at, member in self._members(column, part):
                theirs = _some(self._moved(member), done)
                self._read(member.index, at, made, done, theirs)
                rows = made[done, at]
                sums = (rows[word].copy() for word in ("squares", "crossed", "rests"))
                changed = [theirs[n] for n in np.flatnonzero(rows["changed"]).tolist()]
                self.files.tally.summed_many(ManySums(member.index, theirs, *sums), changed)
            last = self._last(column, part)
            self.files.writer.set_only_digests(keys, _digests(made[done, last]))

    def _moved(self, member: Participant) -> tuple[str, ...]:
        """The tensors that a participant has at the places; asked twice, the same."""
        if self.many.units[0].layers == 1:
            return self.names
        if member.index not in self._theirs:
            self._theirs[member.index] = self.many.moved(member)
        return self._theirs[member.index]

    def _read(self, owner: Owner, column: int, made: Array, done: I64, names: Sequence[str]) -> Raw:
        digests = _digests(made[done, column])
        self.files.tally.took(owner, names, digests)
        return digests

    def _check_old(self, keys: Sequence[str], part: Part, digests: Raw) -> None:
        old = self.files.old
        if old is None or not part.kept or not keys:
            return
        if not old.store.shards and digests.tobytes() == old.store.only_digests(keys):
            return
        for key, value in zip(keys, each_digest(digests), strict=True):
            if value != old.digest(key, 0):
                raise old.damaged(key)


def _some(names: tuple[str, ...], rows: I64) -> Sequence[str]:
    return names if len(rows) == len(names) else [names[at] for at in rows.tolist()]


def _digests(made: Array) -> Raw:
    """n × 16 bytes."""
    return np.ascontiguousarray(made["digest"]).view(np.uint8).reshape(len(made), DIGEST_BYTES)
