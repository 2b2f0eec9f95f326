"""One task on its way out of a bank: where it goes, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.kernel import Kernel
from randes_cli.errors import MismatchError, UsageError, first_of
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import BankBase
from randes_cli.files.weight_names import index_name, takes_shards
from randes_cli.files.writer import (
    CheckpointWriter,
    checkpoint_writer,
    shards_of,
    weight_files,
)
from randes_cli.read.many import send_many, small_runs
from randes_cli.read.originals import Originals
from randes_cli.read.pieces import Piece
from randes_cli.read.places import (
    Destination,
    UnpackOptions,
    by_component,
    new_folders,
    write_side_files,
)
from randes_cli.read.retrieve import Retrieval
from randes_cli.read.way import Way
from randes_cli.specs import RunOptions
from randes_cli.stats.approximate import stored_reason
from randes_cli.stats.coefficients import stands_alone
from randes_cli.workers import Progress, run_parallel


@dataclass(frozen=True, slots=True)
class UnpackReport:
    """One task that was written (or with a dry run would be). Sizes are bytes.

    `path` is the file or folder that loads it; `files` are all its files, weights first;
    `left_out` are files of the packed folder that are not in the bank, each with the reason;
    `turned` are tensors that are positive throughout in the base and came back partly negative;
    `approximate` says why what was predicted, from which its λ is, is approximate; `read_bytes`
    are those of the bank's tensors, and its base's, that the task is made of.
    """

    task: str
    path: str
    dry_run: bool
    bytes: int
    tensors: int
    superposed: int
    coefficient: float
    saturated: int
    damaged: tuple[str, ...]
    files: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()
    approximate: str = ""
    read_bytes: int = 0


class Unpacking:
    """One task on its way out."""

    def __init__(
        self,
        bank: BankFile,
        base: BankBase | None,
        task: TaskRecord,
        place: Destination,
        options: UnpackOptions,
        run: RunOptions,
        way: Way,
    ) -> None:
        self.bank, self.base = bank, base
        self.place, self.options, self.over, self.way = place, options, options.force, way
        self.retrieval = Retrieval(
            bank,
            base,
            task,
            coefficient=options.coefficient,
            dtype=options.dtype,
            force=options.force,
            run=run,
        )
        self.components = by_component(self.retrieval, place.weights)
        self.notes = list(place.notes)
        self.bytes = sum(tensor.nbytes for tensor in self.retrieval.tensors.values())

    @cached_property
    def files(self) -> list[Path]:
        """Every file that is written: weights and indexes first."""
        made: list[Path] = []
        for component, path in self.place.weights.items():
            tensors = list(self.components[component].values())
            made += weight_files(path, tensors, shard_bytes=self._shard_bytes(path))
        return [*made, *self.place.side_files]

    @property
    def path(self) -> str:
        """What loads the task in the end."""
        return str(self.way.of(self.place.path))

    def named(self) -> tuple[str, ...]:
        """Every file, where it is in the end."""
        return tuple(str(self.way.of(path)) for path in self.files)

    def _shard_bytes(self, path: Path) -> int | None:
        """The most bytes of one weight file: no limit where its library reads no shards."""
        layout = self.retrieval.task.layout
        whole = layout and path.name in {Path(target).name for target in layout.values()}
        return None if whole and not takes_shards(path.name) else self.options.shard_bytes

    def check(self, originals: Originals) -> None:
        """Refuse, before anything is written, a place that is taken or no place for a file."""
        files, way = self.files, self.way
        self.notes += self._others(files)
        for path in files:
            originals.refuse(way.of(path))
            way.check(path, force=self.options.force)
        for path in self.place.weights.values():
            there = way.siblings(path)
            others = [index_name(path.name), path.name, *shards_of(path.name, there)]
            beside = (path.with_name(name) for name in others if name in there)
            other = next((p for p in beside if p not in files), None)
            if other is not None:
                raise UsageError(
                    f"{way.of(other)}: would be loaded beside or instead of the new weights"
                )

    def _others(self, files: list[Path]) -> list[str]:
        """What to say of other files in the folder that is to load as the task."""
        if not self.retrieval.task.layout or self.place.path in files:
            return []
        there = self.way.siblings(self.place.path / "x")
        ours = {path.relative_to(self.place.path).parts[0] for path in files}
        others = [name for name in there if name not in ours and not name.startswith(".")]
        some = first_of(others, 3)
        return [f"{self.path} has other files, too ({some}), beside what was written"] * bool(some)

    def write(self, progress: Progress) -> None:
        """Write the weights and then side files, but commit the weights last.

        A folder without weights loads as nothing; one whose writing fails has nothing new.
        """
        with new_folders(path.parent for path in self.files), self._writers() as writers:
            self._write_weights(writers, progress)
            self.notes += write_side_files(
                self.bank, self.place, force=self.over, dtype=self.options.dtype
            )
        weights = len(self.files) - len(self.place.side_files)
        ordered = [*self.files[weights:], *self.files[:weights]]
        self.way.send(ordered, force=self.over, progress=progress)

    @contextmanager
    def _writers(self) -> Iterator[dict[str, tuple[CheckpointWriter, str]]]:
        """For each tensor its writer, and its name in that file."""
        metadata = {"format": "pt", **self.retrieval.task.metadata}  # as transformers wants it
        made = {}
        with ExitStack() as stack:
            for component, path in self.place.weights.items():
                inside = self.components[component]
                writer = stack.enter_context(
                    checkpoint_writer(
                        path,
                        list(inside.values()),
                        metadata,
                        shard_bytes=self._shard_bytes(path),
                        force=self.over,
                    )
                )
                made.update({name: (writer, tensor.name) for name, tensor in inside.items()})
            yield made

    def _write_weights(
        self, writers: Mapping[str, tuple[CheckpointWriter, str]], progress: Progress
    ) -> None:
        retrieval = self.retrieval
        runs: list[tuple[str, ...] | list[Piece]] = [*small_runs(retrieval)]
        small = {name for run in runs for name in run}
        large = [retrieval.pieces(name) for name in retrieval.tensors if name not in small]
        room = max((piece.nbytes for pieces in large for piece in pieces), default=0)
        cut = self.bank.manifest.sealed.get(retrieval.task.group)
        few = 1 if cut is None else 8 // cut.bits  # whose codes are a chunk: one thread reads it
        runs += [pieces[n : n + few] for pieces in large for n in range(0, len(pieces), few)]

        def worker() -> tuple[Kernel, Raw]:
            return retrieval.workers.kernel(), np.empty(room, np.uint8)

        def work(state: tuple[Kernel, Raw], job: tuple[str, ...] | list[Piece]) -> int:
            if isinstance(job, tuple):
                return self._write_many(state[0], writers, job)
            each = (self._write_piece(*state, *writers[one.tensor.name], one) for one in job)
            return sum(each)

        run_parallel(
            runs,
            worker,
            work,
            threads=retrieval.workers.threads,
            phase=f"unpacking {retrieval.task.name}",
            total=self.bytes,
            progress=progress,
        )
        if retrieval.saturated and not self.options.saturate:
            raise MismatchError(
                f"task {retrieval.task.name}: {retrieval.saturated} values are beyond the range "
                "of the output's dtype; choose a wider --dtype or say --saturate"
            )

    def _write_piece(
        self, kernel: Kernel, buffer: Raw, writer: CheckpointWriter, name: str, piece: Piece
    ) -> int:
        file, offset = writer.place(name)
        with file.written_by():
            sent = self.retrieval.send(kernel, piece, (file.fd, offset + piece.start))
        if sent:
            file.sent(piece.nbytes)
        else:
            out = buffer[: piece.nbytes]
            self.retrieval.fill(kernel, piece, out)
            writer.write(name, piece.start, out)
        return piece.nbytes

    def _write_many(
        self,
        kernel: Kernel,
        writers: Mapping[str, tuple[CheckpointWriter, str]],
        names: tuple[str, ...],
    ) -> int:
        """Write small tensors in one go, and by themselves those that it leaves."""
        retrieval, found = self.retrieval, [writers[name] for name in names]
        places = [writer.place(name) for writer, name in found]
        rows = np.array([(file.fd, offset) for file, offset in places], np.int64)
        with places[0][0].written_by():  # one file, but for shards: an error may name another one
            left = send_many(retrieval, kernel, names, rows)
        size = sum(retrieval.tensors[name].nbytes for name in names)
        for file in {id(file): file for file, _ in places}.values():
            file.sent(size)
        for piece in (piece for name in left for piece in retrieval.pieces(name)):
            buffer = np.empty(piece.nbytes, np.uint8)
            self._write_piece(kernel, buffer, *writers[piece.tensor.name], piece)
        return size

    def report(self, dry_run: bool) -> UnpackReport:
        """What was (or would be) written."""
        retrieval = self.retrieval
        if self.options.shard_bytes is not None:
            self.notes += [
                f"{path.name}: one file, for its library reads no shards of it"
                for path in self.place.weights.values()
                if self._shard_bytes(path) is None
            ]
        return UnpackReport(
            task=retrieval.task.name,
            path=self.path,
            dry_run=dry_run,
            bytes=self.bytes,
            tensors=len(retrieval.tensors),
            superposed=sum(map(retrieval.superposed, retrieval.tensors)),
            coefficient=retrieval.coefficient,
            saturated=retrieval.saturated,
            damaged=tuple(sorted(retrieval.damaged)),
            files=self.named(),
            left_out=dict(retrieval.task.left_out),
            notes=tuple(self.notes),
            turned=retrieval.turned.names,
            approximate=self._approximate(),
            read_bytes=retrieval.stored_bytes(base=self.base is not None),
        )

    def _approximate(self) -> str:
        """Why λ is approximate, where it is neither given nor tuned; it needs no norms if alone."""
        task, bank = self.retrieval.task, self.retrieval.bank
        given = self.options.coefficient is not None or task.coefficient is not None
        return "" if given or stands_alone(bank.manifest, task) else stored_reason(bank, task)
