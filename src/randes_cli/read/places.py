"""Where unpacked tasks go: the place of each, its weight files, and the small files beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from randes_cli.errors import BankDamaged, UsageError
from randes_cli.files.atomic import atomic_file
from randes_cli.files.bank.file import BankFile
from randes_cli.files.bank.keys import file_key
from randes_cli.files.bank.records import TaskRecord
from randes_cli.files.checkpoint.configs import TORCH_NAMES, dtype_called, with_dtype
from randes_cli.files.kinds import SUFFIXES, is_code
from randes_cli.files.local.disk import wrap_os_error
from randes_cli.files.local.system import is_folder
from randes_cli.files.location import Place
from randes_cli.files.side_files import content_digest, left_out_note
from randes_cli.files.weight_names import PICKLES, component_of
from randes_cli.limits import MOST_COEFFICIENT, check_number
from randes_cli.read.retrieve import Retrieval
from randes_cli.specs import FLOAT_DTYPES, TensorInfo, check_shard_size


@dataclass(frozen=True, slots=True)
class UnpackOptions:
    """How tasks come out.

    Attributes:
        coefficient: λ in place of the task's own (None: the task's).
        dtype: dtype of all floating-point tensors, as ``BF16`` or ``bfloat16`` (None: the task's).
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
        dtype = None if self.dtype is None else dtype_called(self.dtype)
        object.__setattr__(self, "dtype", dtype or self.dtype)
        if self.dtype is not None and self.dtype not in FLOAT_DTYPES:
            raise UsageError(f"--dtype must be one of {', '.join(sorted(FLOAT_DTYPES))}")
        check_shard_size(self.shard_bytes)


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

    def moved(self, move: Callable[[Path], Path]) -> Destination:
        return Destination(
            move(self.path),
            {name: move(path) for name, path in self.weights.items()},
            {move(path): content for path, content in self.side_files.items()},
            self.notes,
        )


def check_name(out: Place) -> None:
    """Refuse an output whose name is that of a file that is not written."""
    if out.suffix in PICKLES and not (isinstance(out, Path) and is_folder(out)):
        raise UsageError(
            f"{out}: unpack writes safetensors; name a file {out.stem}.safetensors, or a folder"
        )


def destination(
    task: TaskRecord, out: Path | None, options: UnpackOptions, *, single: bool
) -> Destination:
    """Where a task goes when `out` is what the user named (None: here, named after the task).

    ``X.safetensors`` (or .st) is a bare file. Anything else is a folder: a single task that was
    named and came from a folder becomes that folder, another task ``X/<task>.safetensors`` or
    ``X/<task>/``. Raises UsageError for a bare file of several tasks or of a pipeline.
    """
    if out is not None and names_a_file(out):
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
        if is_code(name) and not options.trust_remote_code_files:
            notes.append(f"{name}: code, not written (see --trust-remote-code-files)")
        else:
            files[folder / name] = content
    if task.left_out and not options.safetensors_only:
        notes += [f"{text} when it was packed" for text in left_out_note(task.left_out)]
    return Destination(folder, weights, files, tuple(notes))


def names_a_file(out: Path | None) -> bool:
    """Whether an output's name is that of a file of weights."""
    return out is not None and out.name.endswith(SUFFIXES) and not is_folder(out)


def write_side_files(
    bank: BankFile, place: Destination, *, force: bool = False, dtype: str | None = None
) -> list[str]:
    """Write a task's side files where they belong; say what was changed in them.

    With `dtype` each config.json says that the weights have it. Raises BankDamaged, before any
    is written.
    """
    notes = []
    for content in place.side_files.values():
        side_file(bank, content)
    for path, content in place.side_files.items():
        data = side_file(bank, content)
        if dtype is not None and path.name == "config.json":
            stored, data = data, with_dtype(data, dtype)
            if data != stored:
                name = path.relative_to(place.path).as_posix()
                notes.append(f"{name}: dtype is {TORCH_NAMES[dtype]}, as the weights now are")
        make_folder(path.parent)
        with atomic_file(path, force=force) as file:
            file.write_at(data, 0)
    return notes


def side_file(bank: BankFile, content: str) -> bytes:
    """The bytes of a small file, by their digest. Raises BankDamaged."""
    data = bank.read_whole(file_key(content)).tobytes()
    if content_digest(data) != content:
        raise BankDamaged(f"{bank.path}: tensor {file_key(content)!r} is damaged")
    return data


@contextmanager
def new_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Folders for the time of the block and, unless it fails, after it."""
    made: list[Path] = []
    try:
        for folder in folders:
            made += [path for path in (folder, *folder.parents) if not path.exists()]
            make_folder(folder)
        yield
    except BaseException:
        for folder in sorted(made, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()
        raise


def make_folder(folder: Path) -> None:
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
    if made.keys() == {""} and retrieval.task.prefix == ("", ""):
        return {"": retrieval.tensors}
    for name, tensor in retrieval.tensors.items():
        outer = retrieval.output_name(name)
        component = component_of(outer, weights)
        inner = outer[len(component) + 1 :] if component else outer
        if component not in made:
            raise BankDamaged(f"{retrieval.bank.path}: no weight file for tensor {name[:100]!r}")
        made[component][name] = TensorInfo(inner, tensor.dtype, tensor.shape)
    return made
