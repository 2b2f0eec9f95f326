"""`unpack`: tasks out of a bank as ordinary safetensors checkpoints, written as a stream.

A task that came from a folder comes back as a folder that `from_pretrained` opens: its
weights (of each component) and its side files. A bare file comes back as a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.core.kernel import Kernel
from randes_cli.errors import BankDamaged, MismatchError, UsageError
from randes_cli.files.atomic import (
    atomic_file,
    check_space,
    check_target,
    wrap_os_error,
)
from randes_cli.files.bank import BankFile
from randes_cli.files.bank_keys import file_key
from randes_cli.files.base import BankBase, bank_base
from randes_cli.files.configs import TORCH_NAMES, with_dtype
from randes_cli.files.folders import PICKLES, SUFFIXES, component_of, index_name, takes_shards
from randes_cli.files.guard import one_command
from randes_cli.files.kinds import is_code
from randes_cli.files.records import TaskRecord
from randes_cli.files.side_files import content_digest, is_side_file, left_out_note
from randes_cli.files.writer import (
    CheckpointWriter,
    checkpoint_writer,
    shards_of,
    weight_files,
)
from randes_cli.limits import MOST_COEFFICIENT, Limit, StrPath, check_number
from randes_cli.read.retrieve import Piece, Retrieval, output_metadata
from randes_cli.specs import FLOAT_DTYPES, RunOptions, TensorInfo
from randes_cli.workers import Progress, no_progress, run_parallel


@dataclass(frozen=True, slots=True)
class UnpackReport:
    """One task that was written (or with a dry run would be). Sizes are bytes.

    `path` is the file or folder that loads it; `files` are all its files, weights first;
    `left_out` are files of the packed folder that are not in the bank, each with the reason.
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


@dataclass(frozen=True, slots=True)
class UnpackOptions:
    """How tasks come out.

    Attributes:
        coefficient: λ in place of the task's own (None: the task's).
        dtype: dtype of all floating-point tensors (None: the task's).
        shard_bytes: most bytes of one output file (None: one file).
        saturate: let values beyond the dtype's range become its largest, and count them.
        force: replace what is there, and write damaged tasks all the same.
        safetensors_only: write weights and no side files.
        trust_remote_code_files: write the Python files that came with a task.
    """

    coefficient: float | None = None
    dtype: str | None = None
    shard_bytes: int | None = None
    saturate: bool = False
    force: bool = False
    safetensors_only: bool = False
    trust_remote_code_files: bool = False

    def __post_init__(self) -> None:
        if self.coefficient is not None:
            check_number("--lambda", self.coefficient, MOST_COEFFICIENT)
        if self.dtype is not None and self.dtype not in FLOAT_DTYPES:
            raise UsageError(f"--dtype must be one of {', '.join(sorted(FLOAT_DTYPES))}")
        if self.shard_bytes is not None:
            Limit(1, 2**63 - 1).check("--shard", self.shard_bytes)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one task goes.

    Attributes:
        path: what the user opens afterwards: a file, or a folder.
        weights: weight file by component (as in the task's layout).
        side_files: content digest by the path to write it to.
        notes: what is not written or changed, and why.
    """

    path: Path
    weights: Mapping[str, Path]
    side_files: Mapping[Path, str]
    notes: tuple[str, ...] = ()


def destination(
    task: TaskRecord, out: Path | None, options: UnpackOptions, *, single: bool
) -> Destination:
    """Where a task goes when `out` is what the user named (None: here, named after the task).

    ``X.safetensors`` (or .st) is a bare file. Anything else is a folder: a single task that was
    named and came from a folder becomes that folder, another task ``X/<task>.safetensors`` or
    ``X/<task>/``. Raises UsageError for a bare file of several tasks or of a pipeline, and for
    the name of another kind of file.
    """
    if out is not None and out.suffix in PICKLES and not out.is_dir():
        raise UsageError(
            f"{out}: unpack writes safetensors; name a file {out.stem}.safetensors, or a folder"
        )
    if out is not None and _is_file(out):
        if not single:
            raise UsageError(f"{out}: a file for one task; name a folder for several")
        if len(task.layout) > 1:
            parts = ", ".join(sorted(task.layout))
            raise UsageError(f"{out}: task {task.name} has components ({parts}); name a folder")
        return Destination(out, dict.fromkeys(task.layout or [""], out), {})
    parent = out or Path()
    if not task.layout:
        file = parent / f"{task.name}.safetensors"
        return Destination(file, {"": file}, {})
    folder = parent if single and out is not None else parent / task.name
    weights = {component: folder / target for component, target in task.layout.items()}
    files, notes = {}, list[str]()
    for name, content in task.files.items():
        if options.safetensors_only:
            continue
        if not is_side_file(name):
            raise BankDamaged(f"task {task.name}: {name[:100]!a} is not the name of a side file")
        if is_code(name) and not options.trust_remote_code_files:
            notes.append(f"{name}: code, not written (see --trust-remote-code-files)")
        else:
            files[folder / name] = content
    if task.left_out and not options.safetensors_only:
        notes += [f"{text} when it was packed" for text in left_out_note(task.left_out)]
    return Destination(folder, weights, files, tuple(notes))


def _is_file(out: Path | None) -> bool:
    """Whether an output's name is that of a file of weights."""
    return out is not None and out.name.endswith(SUFFIXES) and not out.is_dir()


@one_command()
def unpack(
    bank: StrPath,
    names: Sequence[str] | None,
    out: StrPath | None,
    options: UnpackOptions,
    run: RunOptions,
    *,
    base: StrPath | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> list[UnpackReport]:
    """Write tasks (None: all) of a bank to `out`: see `destination`.

    Every place is checked before any is written.
    Raises MissingError, UsageError (something is there), BankDamaged, MismatchError, NoSpace.
    """
    out = None if out is None else Path(out)
    with ExitStack() as stack:
        file = stack.enter_context(BankFile(Path(bank)))
        every = [task.name for task in file.manifest.tasks]
        chosen = every if names is None else list(dict.fromkeys(names))
        tasks = [file.task(name) for name in chosen]
        single = len(tasks) == 1 and (names is not None or _is_file(out))
        places = [destination(task, out, options, single=single) for task in tasks]
        opened = stack.enter_context(bank_base(file, base))
        jobs = [
            _Unpacking(file, opened, task, place, options, run)
            for task, place in zip(tasks, places, strict=True)
        ]
        for job in jobs:
            job.check()
        if not dry_run:
            check_space(_existing(out or Path()), sum(job.bytes for job in jobs))
            for job in jobs:
                job.write(progress)
        return [job.report(dry_run) for job in jobs]


def _existing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path())


class _Unpacking:
    """One task on its way out."""

    def __init__(
        self,
        bank: BankFile,
        base: BankBase | None,
        task: TaskRecord,
        place: Destination,
        options: UnpackOptions,
        run: RunOptions,
    ) -> None:
        self.bank, self.base = bank, base
        self.place, self.options = place, options
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

    def files(self) -> list[Path]:
        """Every file that is written: weights and indexes first."""
        made: list[Path] = []
        for component, path in self.place.weights.items():
            tensors = list(self.components[component].values())
            made += weight_files(path, tensors, shard_bytes=self._shard_bytes(path))
        return [*made, *self.place.side_files]

    def _shard_bytes(self, path: Path) -> int | None:
        """The most bytes of one weight file: no limit where its library reads no shards."""
        layout = self.retrieval.task.layout
        whole = layout and path.name in {Path(target).name for target in layout.values()}
        return None if whole and not takes_shards(path.name) else self.options.shard_bytes

    def check(self) -> None:
        """Refuse, before anything is written, a place that is taken or no place for a file."""
        files = self.files()
        for path in files:
            if path.parent.exists():
                check_target(path, force=self.options.force)
        for path in self.place.weights.values():
            others = [path.with_name(index_name(path.name)), path, *shards_of(path)]
            other = next((p for p in others if p not in files and p.exists()), None)
            if other is not None:
                raise UsageError(f"{other}: would be loaded beside or instead of the new weights")

    def write(self, progress: Progress) -> None:
        """Write side files, then the weights: a folder without weights loads as nothing."""
        for path in self.files():
            _make_folder(path.parent)
        self.notes += write_side_files(
            self.bank, self.place, force=self.options.force, dtype=self.options.dtype
        )
        with self._writers() as writers:
            self._write_weights(writers, progress)

    @contextmanager
    def _writers(self) -> Iterator[dict[str, tuple[CheckpointWriter, str]]]:
        """For each tensor its writer, and its name in that file."""
        metadata = output_metadata(self.retrieval.task)
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
                        force=self.options.force,
                    )
                )
                made.update({name: (writer, tensor.name) for name, tensor in inside.items()})
            yield made

    def _write_weights(
        self, writers: Mapping[str, tuple[CheckpointWriter, str]], progress: Progress
    ) -> None:
        retrieval = self.retrieval
        pieces = [piece for name in retrieval.tensors for piece in retrieval.pieces(name)]
        room = max((piece.nbytes for piece in pieces), default=0)

        def worker() -> tuple[Kernel, Raw]:
            return retrieval.workers.kernel(), np.empty(room, np.uint8)

        def work(state: tuple[Kernel, Raw], piece: Piece) -> int:
            kernel, buffer = state
            out = buffer[: piece.nbytes]
            retrieval.fill(kernel, piece, out)
            writer, name = writers[piece.tensor.name]
            writer.write(name, piece.start, out)
            return len(out)

        run_parallel(
            pieces,
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
            path=str(self.place.path),
            dry_run=dry_run,
            bytes=self.bytes,
            tensors=len(retrieval.tensors),
            superposed=sum(map(retrieval.superposed, retrieval.tensors)),
            coefficient=retrieval.coefficient,
            saturated=retrieval.saturated,
            damaged=tuple(sorted(retrieval.damaged)),
            files=tuple(map(str, self.files())),
            left_out=dict(retrieval.task.left_out),
            notes=tuple(self.notes),
        )


def write_side_files(
    bank: BankFile, place: Destination, *, force: bool = False, dtype: str | None = None
) -> list[str]:
    """Write a task's side files where they belong; say what was changed in them.

    With `dtype` each config.json says that the weights have it. Raises BankDamaged.
    """
    notes = []
    for path, content in place.side_files.items():
        data = bank.read_whole(file_key(content)).tobytes()
        if content_digest(data) != content:
            raise BankDamaged(f"{bank.path}: tensor {file_key(content)!a} is damaged")
        if dtype is not None and path.name == "config.json":
            stored, data = data, with_dtype(data, dtype)
            if data != stored:
                name = path.relative_to(place.path).as_posix()
                notes.append(f"{name}: dtype is {TORCH_NAMES[dtype]}, as the weights now are")
        _make_folder(path.parent)
        with atomic_file(path, force=force) as file:
            file.write_at(data, 0)
    return notes


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{folder}: a file is where the output's folder should be") from None
    except OSError as error:
        raise wrap_os_error(error, folder, "making the folder") from error


def by_component(
    retrieval: Retrieval, weights: Mapping[str, object]
) -> dict[str, dict[str, TensorInfo]]:
    """By component and bank name: the tensors as they are called in the component's file."""
    made: dict[str, dict[str, TensorInfo]] = {component: {} for component in weights}
    for name, tensor in retrieval.tensors.items():
        outer = retrieval.output_name(name)
        component = component_of(outer, weights)
        inner = outer[len(component) + 1 :] if component else outer
        if component not in made:
            raise BankDamaged(f"{retrieval.bank.path}: no weight file for tensor {name[:100]!a}")
        made[component][name] = TensorInfo(inner, tensor.dtype, tensor.shape)
    return made
