"""`diff`: what differs between two banks, a bank and checkpoints, or two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from randes_cli.build.inputs.tasks import reopen
from randes_cli.core.arrays import Raw
from randes_cli.errors import CheckpointError, MismatchError, UsageError, without_login
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import parse_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.base import BankBase, bank_base, bank_source
from randes_cli.files.local.guard import reading
from randes_cli.files.source import Source
from randes_cli.files.sources import Sources
from randes_cli.limits import StrPath, as_source
from randes_cli.ops.compare import TypeDiff, type_diffs
from randes_cli.ops.originals import Originals, Watched
from randes_cli.read.pieces import Piece
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import OpenOptions, RunOptions, TensorInfo
from randes_cli.stats.lengths import sealed_bits
from randes_cli.workers import Progress, no_progress


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """Two checkpoints. `added` are B's tensors that A lacks, `removed` the reverse.

    Attributes:
        reshaped: tensors with two shapes, as [A's, B's].
        retyped: tensors with two dtypes, as [A's, B's].
        types: the tensors in common, those that differ most first.
    """

    a: str
    b: str
    base: str | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    retyped: dict[str, tuple[str, str]]
    types: tuple[TypeDiff, ...]

    @property
    def same(self) -> bool:
        """Whether names, shapes, dtypes and values are all equal."""
        listed = self.added or self.removed or self.reshaped
        return not listed and not any(one.changed for one in self.types)


@dataclass(frozen=True, slots=True)
class BankDiff:
    """Two banks, or a bank (A) and checkpoints (B).

    Attributes:
        settings: options that differ, as [A's, B's].
        added: tasks of B that A lacks; `removed` the reverse.
        changed: tasks of one name that differ: field to [A's, B's].
        kept: tasks that are alike in both.
        tensors: tensors of the bank files whose bytes differ or that only one has.
        types: how tasks of one name and another content differ, by type of tensor: deltas as A
            retrieves them, against B's as retrieved or as in the checkpoint.
    """

    a: str
    b: str
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    types: dict[str, tuple[TypeDiff, ...]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.settings or self.added or self.removed or self.changed or self.tensors)


def _settings(bank: BankFile) -> dict[str, Any]:
    manifest, transform = bank.manifest, bank.manifest.transform
    return {
        "base": manifest.base.fingerprint,
        "base storage": manifest.base.storage.value,
        "shuffle": transform.shuffle.value,
        "signs": transform.signs.value,
        "targets": transform.targets,
        "every": transform.every,
        "rest": transform.rest.value,
        "bits": manifest.bits,
        "sealed": sealed_bits(manifest),
        "shares": dict(manifest.shares),
        "seed": manifest.seed,
        "groups": manifest.groups,
        "capacity": manifest.capacity,
        "next index": manifest.next_index,
        "forgotten": len(manifest.forgotten),
    }


def _task(task: TaskRecord) -> dict[str, Any]:
    return {
        "content": task.fingerprint,
        "index": task.index,
        "seed": task.seed,
        "group": task.group,
        "λ": task.coefficient,
        "source": task.source,
        "dtype": task.dtype,
    }


def _unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a[key], b[key]) for key in a if a[key] != b[key]}


def _task_types(
    a: RetrievedTask, b: Source, base: BankBase | None, run: RunOptions, progress: Progress
) -> tuple[TypeDiff, ...]:
    """How the deltas of two sides of one task differ, on the tensors that compare."""
    shapes = {} if base is None else {name: info.shape for name, info in base.tensors.items()}
    names = [
        name
        for name, info in a.tensors.items()
        if a.comparable(name, b.tensors.get(name))
        and not (isinstance(b, RetrievedTask) and not b.comparable(name, info))
        and (base is None or shapes.get(name) == info.shape)
    ]
    return type_diffs(a, b, base, names, run, progress)


def diff_banks(
    a: BankFile, b: BankFile, run: RunOptions, *, progress: Progress = no_progress
) -> BankDiff:
    """Compare two open banks by their manifests and recorded digests.

    Data are read of tasks of one name and another content alone, where the base is the same.
    """
    tasks = [{task.name: task for task in bank.manifest.tasks} for bank in (a, b)]
    both = [name for name in tasks[0] if name in tasks[1]]
    changed = {
        name: found
        for name in both
        if (found := _unequal(_task(tasks[0][name]), _task(tasks[1][name])))
    }
    keys = dict.fromkeys([*a.header.tensors, *b.header.tensors])
    differ = [
        key
        for key in keys
        if parse_key(key).kind not in ("checks", "manifest", "align")
        and (
            a.header.tensors.get(key) != b.header.tensors.get(key)
            or a.digests(key) != b.digests(key)
        )
    ]
    types = {}
    other = [name for name, fields in changed.items() if "content" in fields]
    if other and a.manifest.base.fingerprint == b.manifest.base.fingerprint:
        with ExitStack() as stack:
            leave = run.allow_pickle
            bases = [stack.enter_context(bank_base(k, allow_pickle=leave)) for k in (a, b)]
            for name in other:
                pair = [RetrievedTask(k, z, name, run) for k, z in zip((a, b), bases, strict=True)]
                types[name] = _task_types(pair[0], pair[1], bases[0], run, progress)
    return BankDiff(
        types=types,
        a=str(a.path),
        b=str(b.path),
        settings=_unequal(_settings(a), _settings(b)),
        added=tuple(name for name in tasks[1] if name not in tasks[0]),
        removed=tuple(name for name in tasks[0] if name not in tasks[1]),
        changed=changed,
        kept=tuple(name for name in both if name not in changed),
        tensors=tuple(differ),
    )


def _as_packed(
    stack: ExitStack,
    bank: BankFile,
    base: BankBase | None,
    name: str,
    source: str,
    leave: OpenOptions,
) -> Source | None:
    """A checkpoint as `pack` reads it (adapters merged, names mapped); None where it fails."""
    try:
        return reopen(stack, name, source, bank_source(bank, base), leave).source
    except (MismatchError, CheckpointError):
        return None


@reading()
def diff_bank_checkpoints(
    bank: BankFile,
    checkpoints: Originals,
    run: RunOptions,
    *,
    progress: Progress = no_progress,
) -> BankDiff:
    """Whether a bank's tasks are these checkpoints; its other tasks do not count."""
    tasks = {task.name: task for task in bank.manifest.tasks}
    added, kept, changed, types = [], [], {}, {}
    for name, source in checkpoints.items():
        with ExitStack() as stack:
            leave, task = OpenOptions(allow_pickle=run.allow_pickle), tasks.get(name)
            leave = leave if task is None else leave.recorded(task.pickle, task.layout)
            opened = stack.enter_context(Sources(leave).open(as_source(source)))
            if task is None:
                added.append(name)
                continue
            found = Watched(opened).fingerprint(run, progress)
            if found != task.fingerprint:
                base = stack.enter_context(bank_base(bank, allow_pickle=run.allow_pickle))
                packed = _as_packed(stack, bank, base, name, as_source(source), leave) or opened
                if packed.tensors != opened.tensors:
                    found = Watched(packed).fingerprint(run, progress)
                if found != task.fingerprint:
                    changed[name] = {"content": (task.fingerprint, found)}
                    ours = RetrievedTask(bank, base, name, run)
                    types[name] = _task_types(ours, packed, base, run, progress)
                    continue
            kept.append(name)
    return BankDiff(
        a=str(bank.path),
        b=without_login(", ".join(map(as_source, checkpoints.values()))),
        added=tuple(added),
        changed=changed,
        kept=tuple(kept),
        types=types,
    )


@reading()
def diff_checkpoints(
    a: StrPath,
    b: StrPath,
    run: RunOptions,
    *,
    base: StrPath | None = None,
    progress: Progress = no_progress,
) -> CheckpointDiff:
    """Compare two checkpoints, streamed; with `base`, their deltas from it.

    Raises MismatchError where the base lacks a tensor of both, or its shape; what opening raises.
    """
    a, b, base = as_source(a), as_source(b), None if base is None else as_source(base)
    with ExitStack() as stack:
        sources = Sources(OpenOptions(allow_pickle=run.allow_pickle))
        one, two = (stack.enter_context(sources.open(source)) for source in (a, b))
        zero = None if base is None else stack.enter_context(sources.open(base))
        both = [name for name in one.tensors if name in two.tensors]
        shapes = {n: (one.tensors[n].shape, two.tensors[n].shape) for n in both}
        dtypes = {n: (one.tensors[n].dtype, two.tensors[n].dtype) for n in both}
        alike = [name for name in both if shapes[name][0] == shapes[name][1]]
        known = {} if zero is None else {name: t.shape for name, t in zero.tensors.items()}
        for name in alike if zero is not None else ():
            if known.get(name) != shapes[name][0]:
                raise MismatchError(f"{base}: tensor {name!r} is missing or has another shape")
        return CheckpointDiff(
            a=without_login(a),
            b=without_login(b),
            base=None if base is None else without_login(base),
            added=tuple(name for name in two.tensors if name not in one.tensors),
            removed=tuple(name for name in one.tensors if name not in two.tensors),
            reshaped={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
            retyped={name: pair for name, pair in dtypes.items() if pair[0] != pair[1]},
            types=type_diffs(one, two, zero, alike, run, progress),
        )


class RetrievedTask:
    """What `unpack` would write of a task; reads are of whole pieces (see `Retrieval.pieces`)."""

    def __init__(self, bank: BankFile, base: BankBase | None, name: str, run: RunOptions) -> None:
        self._retrieval = Retrieval(bank, base, bank.task(name), run=run)
        self.source = f"{bank.path}: {name}"
        self.tensors: Mapping[str, TensorInfo] = self._retrieval.tensors
        self.metadata: Mapping[str, str] = {}
        self._pieces: dict[str, dict[int, Piece]] = {}

    def read(self, name: str, start: int, out: Raw) -> None:
        """Fill `out` with the piece that begins at byte `start` of the tensor's data."""
        if name not in self._pieces:
            self._pieces[name] = {piece.start: piece for piece in self._retrieval.pieces(name)}
        piece = self._pieces[name].get(start)
        if piece is None or len(out) != piece.nbytes:
            raise UsageError(f"{self.source}: tensor {name!r} is read in whole pieces")
        self._retrieval.fill(self._retrieval.workers.own_kernel(), piece, out)

    def comparable(self, name: str, other: TensorInfo | None) -> bool:
        """Whether a tensor is superposed or the base's, with the shape of the other side's."""
        same = other is not None and other.shape == self.tensors[name].shape
        return same and not any(piece.own for piece in self._retrieval.pieces(name))
