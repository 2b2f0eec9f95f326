"""`seal` spread over the machines of a cluster: squares of parts of sums, then whole shards.

Sums of squares are integers, and a code follows from its element and the scales: neither the cut
into tasks nor who does one leaves a trace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from randes_cli.build.crew.joining import Pieces, join_all, take_in
from randes_cli.build.crew.pieces import Item, Piece, pieces_of, sink_for
from randes_cli.build.jobs.copies import copies_into
from randes_cli.build.jobs.sums import Sum, scale_bytes, sums_of
from randes_cli.build.seal.cutting import Cutting, Run
from randes_cli.cluster import Cluster
from randes_cli.core.agreement import Agreement
from randes_cli.core.arrays import F16, I64
from randes_cli.errors import MismatchError
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import scale_key
from randes_cli.files.bank.output import shard_maker
from randes_cli.files.bank.writer import BankWriter
from randes_cli.files.digests import chunk_count
from randes_cli.files.location import Place, absolute, absolute_source
from randes_cli.files.sources import open_bank
from randes_cli.plan import WHOLE
from randes_cli.specs import RunOptions, TensorInfo
from randes_cli.workers import Progress


@dataclass(frozen=True, slots=True)
class SealRecipe:
    """How a worker opens the bank that is sealed; `digest` is that of its table of digests."""

    bank: str
    digest: bytes
    groups: tuple[int, ...]
    bits: int
    run: RunOptions

    @contextmanager
    def opened(self) -> Iterator[_Opened]:
        """Open it. Raises MismatchError where the bank is another here."""
        with open_bank(self.bank) as old:
            if old.store.fingerprint != self.digest:
                raise MismatchError(f"{self.bank}: another bank on a worker than on this machine")
            yield _Opened(old, {one.key: one for one in sums_of(old, self.groups)}, self)


class _Opened(NamedTuple):
    """What a task works on."""

    old: BankFile
    sums: Mapping[str, Sum]
    recipe: SealRecipe

    def cutting(self, keys: Collection[str], progress: Progress) -> Cutting:
        """These superpositions, to be cut with the threads of one worker."""
        run = replace(self.recipe.run, threads=max(1, self.recipe.run.threads))
        sums = [self.sums[key] for key in keys]
        return Cutting(self.old, sums, self.recipe.bits, run, progress)


class _Part(NamedTuple):
    """Some chunks of a superposition: all from the first to before the last."""

    key: str
    first: int
    last: int


class _Squares(NamedTuple):
    """Of a part: sums of its rows from `row` on, and of its columns."""

    key: str
    row: int
    along: I64
    table: I64


def measure_parts(opened: _Opened, parts: tuple[_Part, ...], progress: Progress) -> list[_Squares]:
    cutting = opened.cutting(dict.fromkeys(part.key for part in parts), progress)
    cutting.begin(cutting.sums)
    cutting.add_up([Run(opened.sums[part.key], part.first, part.last) for part in parts])
    made = []
    for one in cutting.sums:
        along, table = cutting.squares[one.key]
        rows = np.flatnonzero(along)
        row, end = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
        made.append(_Squares(one.key, row, along[row:end], table))
    return made


@dataclass(frozen=True, slots=True)
class SealTask:
    """A shard of the sealed bank: what is copied into it, and the scales of what is cut."""

    bank: Place
    tensors: tuple[TensorInfo, ...]
    copied: tuple[str, ...]
    scales: Mapping[str, tuple[F16, F16]]
    piece: Piece | None = None

    def part(self, piece: Piece | None, of: Mapping[str, Sum]) -> SealTask:
        """What of it makes a piece; `of` has the superposition that a tensor is of."""
        if piece is None:
            return self
        keys = set(piece.keys)
        ours = {of[key].key for key in keys if key in of}
        scales = {key: fitted for key, fitted in self.scales.items() if key in ours}
        copied = tuple(key for key in self.copied if key in keys)
        return replace(self, copied=copied, scales=scales, piece=piece)


class SealDone(NamedTuple):
    """Digests of a shard, its name, and how codes agree with what they are of.

    Of a piece digests by tensor, and its path.
    """

    digests: bytes | dict[str, bytes]
    name: str | Place
    agreement: Mapping[str, Agreement]


def make_sealed(opened: _Opened, task: SealTask, progress: Progress) -> SealDone:
    with shard_maker(task.bank) as folder:
        piece = task.piece
        span = WHOLE if piece is None else piece.span
        sink = sink_for(folder, task.tensors, piece, closed=True)
        sink.begin()
        for copy in copies_into(sink, opened.old, task.copied, span):
            progress("", copy.into(sink), 0)
        held = {t.name: t for t in task.tensors if piece is None or t.name in piece.keys}
        for key, fitted in task.scales.items():
            tensor = held.get(_scale_key(opened.sums[key]))
            if tensor is not None:
                sink.write_whole(tensor, scale_bytes(*fitted))
        cutting = opened.cutting([key for key in task.scales if key in held], progress)
        for one in cutting.sums:
            cutting.take_scales(one, *task.scales[one.key])
        cutting.cut(sink, span)
        return SealDone(sink.found(), sink.finish(), cutting.agreement)


class SealCrew:
    """The driver's side of a sealing."""

    def __init__(
        self, cluster: Cluster, bank: str, cutting: Cutting, groups: Collection[int]
    ) -> None:
        self.cluster, self.cutting = cluster, cutting
        old, run = cutting.old, cutting.run
        source = str(absolute(old.path)) if not old.far else absolute_source(bank)
        recipe = SealRecipe(source, old.store.fingerprint, tuple(groups), cutting.bits, run)
        self.held = cluster.hold(recipe)

    def measure(self) -> None:
        """`Cutting.measure`, by workers."""
        cutting = self.cutting
        cutting.begin(cutting.sums)
        tasks = [tuple(parts) for parts in self._parts()]
        total = cutting.nbytes
        for _, found in self.cluster.map(
            measure_parts,
            self.held,
            tasks,
            phase="measuring",
            total=total,
            progress=cutting.progress,
        ):
            for key, row, along, table in found:
                cutting.squares[key][0][row : row + len(along)] += along
                cutting.squares[key][1][:] += table
        cutting.fit(cutting.sums)

    def _parts(self) -> Iterator[list[_Part]]:
        """All chunks, in tasks of about as many bytes: some for each worker."""
        cutting = self.cutting
        most = self.cluster.share(cutting.nbytes)
        made, held = list[_Part](), 0
        for one in cutting.sums:
            first, size = 0, cutting.old.info(one.key).nbytes // max(1, one.elements)
            for number, rect in enumerate(one.grid):
                held += rect.elements * size
                if held >= most:
                    yield [*made, _Part(one.key, first, number + 1)]
                    made, held, first = [], 0, number + 1
            if first < len(one.grid):
                made.append(_Part(one.key, first, len(one.grid)))
        if made:
            yield made

    def make(self, writer: BankWriter, copied: Collection[str]) -> None:
        """Have workers make every shard so far that is not there; `copied` stay as they are."""
        cutting, same = self.cutting, set(copied)
        of = {key: one for one in cutting.sums for key in (one.key, _scale_key(one))}
        keys = [*copied, *of]
        numbers = list(dict.fromkeys(map(writer.number_of, keys)))
        there = {writer.number_of(key) for key in keys if writer.has_bytes(key)}
        numbers = [number for number in numbers if number not in there]
        writer.out.folder.prepare()
        shards = [self._shard(writer, number, of, same) for number in numbers]
        items = [self._items(task, of) for task in shards]
        total = sum(item.nbytes for some in items for item in some)
        most, tasks, at = self.cluster.share(total), list[SealTask](), list[int]()
        cuts: dict[int, Pieces] = {}
        for number, task, some in zip(numbers, shards, items, strict=True):
            for piece in pieces_of(some, most, task.bank):
                tasks.append(task.part(piece, of))
                at.append(number)
                if piece is not None:
                    cuts.setdefault(number, Pieces(task.tensors, True)).wait()
        made = self.cluster.map(
            make_sealed,
            self.held,
            tasks,
            phase="sealing",
            total=total,
            progress=cutting.progress,
        )
        for n, done in made:
            take_in(writer, cuts, at[n], tasks[n].piece, done.name, done.digests)
            for key, near in done.agreement.items():
                cutting.agreement[key] = cutting.agreement[key].joined(near)
        join_all(self.cluster, self.held, writer, cuts, cutting.progress)

    def _shard(
        self, writer: BankWriter, number: int, of: Mapping[str, Sum], same: Collection[str]
    ) -> SealTask:
        tensors = tuple(writer.contents(number)[0])
        names = [tensor.name for tensor in tensors]
        cut = {of[name].key: of[name] for name in names if name in of}
        scales = {key: self.cutting.fitted(one) for key, one in cut.items()}
        kept = tuple(name for name in names if name in same)
        return SealTask(absolute(writer.out.path), tensors, kept, scales)

    def _items(self, task: SealTask, of: Mapping[str, Sum]) -> list[Item]:
        """Its tensors, with what is read for them: codes of 2^23 elements come together."""
        made, old, bits = [], self.cutting.old, self.cutting.bits
        for tensor in task.tensors:
            parts, step, nbytes = chunk_count(tensor), 1, 0
            if tensor.name in task.copied:
                nbytes = old.info(tensor.name).nbytes
            elif of[tensor.name].key == tensor.name:
                nbytes, parts, step = old.info(tensor.name).nbytes, -(-parts // bits), bits
            made.append(Item(tensor, nbytes, parts, step))
        return made


def _scale_key(one: Sum) -> str:
    return scale_key(one.group, one.tensor.name)
