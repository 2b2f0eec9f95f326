"""One reader for every checkpoint: a file, a folder with one file or shards, a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from randes_cli.core.arrays import I64, Raw
from randes_cli.core.columns import columns
from randes_cli.errors import CheckpointError, MissingError, first_of
from randes_cli.files.bank.shards import SHARD_METADATA
from randes_cli.files.checkpoint.folders import Part, file_part, folder_parts
from randes_cli.files.checkpoint.foreign import is_pickle, refuse_pickle
from randes_cli.files.checkpoint.quantised import refuse_quantised
from randes_cli.files.local.disk import wrap_os_error
from randes_cli.files.local.guard import unwatch, watch
from randes_cli.files.location import Place
from randes_cli.files.nearest import absent
from randes_cli.files.side_files import SideFile, find_side_files, left_out_note
from randes_cli.files.weight_file import TensorFile, WeightFile
from randes_cli.files.weight_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, component_of
from randes_cli.limits import LONGEST_NAME, is_name, strange_name
from randes_cli.specs import FORMAT_NAME, OpenOptions, Table, TensorInfo, Tensors, once

DEFAULT_OPTIONS = OpenOptions()


def refuse_bank(file: WeightFile) -> None:
    """Raise CheckpointError where a file is a bank, or a shard of one."""
    kind = file.header.metadata.get("format")
    if kind in (FORMAT_NAME, SHARD_METADATA["format"]):
        what = "a bank" if kind == FORMAT_NAME else "a shard of a bank"
        raise CheckpointError(
            f"{file.path}: {what}, not a checkpoint; unpack the task that you mean"
        )


class Checkpoint:
    """Named tensors in one or more files.

    The tensors of a pipeline's component are named ``<component>/<tensor>``.

    Attributes:
        source: what the user named, for messages.
        tensors: by name, in the order of the files and of their data.
        metadata: ``__metadata__`` of the first file.
        files: the files that the tensors lie in.
        folder: the folder that was named, None for a bare file.
        layout: weight file by component, from the folder's root; empty for a bare file.
        side_files: config, tokenizer and the like by name; empty for a bare file.
        left_out: the folder's other files, each with the reason why it stays behind.
        notes: what was chosen or left out, in words.
        held: what is to be closed with it; errors on their way out pass through.
    """

    def __init__(
        self,
        source: str,
        files: Sequence[WeightFile],
        *,
        components: Mapping[Place, str] | None = None,
        folder: Path | None = None,
        layout: Mapping[str, str] | None = None,
        side_files: Mapping[str, SideFile] | None = None,
        left_out: Mapping[str, str] | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.source = source
        self.files = files
        self.folder = folder
        self.layout: Mapping[str, str] = layout or {}
        self.side_files: Mapping[str, SideFile] = side_files or {}
        self.left_out: Mapping[str, str] = left_out or {}
        self.notes = notes
        self.held = ExitStack()
        #: What holds a tensor, and its name there, where that is not the only file and its own.
        self._where: dict[str, tuple[WeightFile, str]] = {}
        self.metadata: Mapping[str, str] = files[0].header.metadata if files else {}
        self.tensors = self._joined(files, components or {})
        watch(self)

    def _joined(self, files: Sequence[WeightFile], components: Mapping[Place, str]) -> Tensors:
        """The tensors of all files; those of one file under its own names are its header's."""
        made: dict[str, TensorInfo] = {}
        known = set(components.values())
        for file in files:
            component, tensors = components.get(file.path, ""), file.header.tensors
            refuse_bank(file)
            refuse_quantised(str(file.path), tensors)
            if len(files) == 1 and not component:
                _refuse_name(file, once(strange_name, tensors))
                return tensors
            for inner, tensor in tensors.items():
                name = f"{component}/{inner}" if component else inner
                if name in made:
                    raise CheckpointError(f"{file.path}: tensor {name!r} is in two shards")
                _refuse_name(file, None if is_name(name) else name)
                if component != component_of(name, known):
                    raise CheckpointError(
                        f"{file.path}: tensor {inner!r} is called like one of the folder "
                        f"{component_of(name, known)}/ beside it; name the file that you mean"
                    )
                made[name] = tensor._replace(name=name) if component else tensor
                self._where[name] = file, inner
        return Table(made)

    @property
    def pickle(self) -> str | None:
        """Where in a pickle the tensors are (``state_dict``); None where it is none."""
        return next((where for f in self.files if (where := f.pickle) is not None), None)

    def changed(self) -> Place | None:
        """A file that is not what it was when it was opened."""
        return next((file.path for file in self.files if file.changed()), None)

    def written(self) -> bool:
        """Whether somebody wrote to a file of it here, in place, since it was opened."""
        known = (getattr(file, "written", None) for file in self.files)
        return any(written() for written in known if written is not None)

    def read(self, name: str, start: int, out: Raw) -> None:
        file, offset = self._place(name)
        file.read_at(offset + start, out)

    def _place(self, name: str) -> tuple[WeightFile, int]:
        file, inner = self._where.get(name) or (self.files[0], name)
        return file, file.header.starts[inner]

    def place(self, name: str) -> tuple[int, int] | None:
        file, offset = self._place(name)
        return (file.fd, offset) if isinstance(file, TensorFile) else None

    def places(self, names: Sequence[str]) -> I64 | None:
        """See `places_of`; None where it is to ask for one after the other."""
        if self._where or not isinstance(self.files[0], TensorFile):
            return None
        made = np.full((len(names), 2), self.files[0].fd, np.int64)
        header = self.files[0].header
        made[:, 1] = header.offsets[columns(header.tensors).at(names)]
        return made

    def close(self) -> None:
        self.__exit__(None, None, None)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: Any) -> None:
        unwatch(self)
        for file in self.files:
            file.close()
        self.held.__exit__(*exception)


def _refuse_name(file: WeightFile, name: str | None) -> None:
    if name is not None:
        raise CheckpointError(
            f"{file.path}: tensor {name[:60]!r}: its name is longer than "
            f"{LONGEST_NAME}, has control characters or is no text"
        )


def _open_file(path: Path, options: OpenOptions) -> WeightFile:
    if is_pickle(path):
        refuse_pickle(path, allow=options.allow_pickle)
        from randes_cli.files.checkpoint.pickles import PickleFile

        return PickleFile(path, options.weights_key)
    return TensorFile(path)


def _check_index(part: Part, files: list[WeightFile]) -> None:
    """Whether the shards hold what their index says, neither less nor more."""
    if part.index is None:
        return
    path, weights = part.index
    inside = (shard.relative_to(path.parent).as_posix() for shard in part.paths)
    opened = zip(inside, files, strict=True)
    held = [(name, shard) for shard, file in opened for name in file.header.tensors]
    there = set(held)
    for name, file in weights.items():
        if (name, file) not in there:
            raise CheckpointError(f"{path}: {file} lacks tensor {name!r}")
    for name, file in held:
        if name not in weights:
            raise CheckpointError(f"{path}: does not name tensor {name!r} that {file} has")


def _metadata_notes(files: Sequence[WeightFile]) -> list[str]:
    """What to say of header metadata that only the first file's have room for."""
    kept = dict(files[0].header.metadata) if files else {}
    made = []
    for file in files[1:]:
        lost = [k for k, v in file.header.metadata.items() if k != "format" and kept.get(k) != v]
        if lost:
            some = first_of([*map(repr, lost)], 3)
            where = f"{file.path.parent.name}/{file.path.name}"
            made.append(f"{where}: its header's metadata stay behind ({some})")
    return made


def find_parts(path: Path, options: OpenOptions = DEFAULT_OPTIONS) -> list[Part]:
    """The weight files of what a path names, by component; none is opened.

    Raises MissingError (not there) or CheckpointError (what is wrong, in which file).
    """
    try:
        if not path.exists():
            raise MissingError(absent(path))
        if path.is_dir():
            return folder_parts(path, options)
        return [file_part(path, allow_pickle=options.allow_pickle)]
    except OSError as error:  # of a folder that may not be entered
        raise wrap_os_error(error, error.filename or path, "looking for weights") from error


def _found(path: Path, options: OpenOptions) -> tuple[Path, list[Part]]:
    """What is opened for a path, and its weight files.

    The weights of an adapter mean nothing without the configuration beside them: its folder.
    """
    parts = find_parts(path, options)
    if path.name == ADAPTER_WEIGHTS and path.with_name(ADAPTER_CONFIG).is_file():
        whole = folder_parts(path.parent, options)
        if [part.paths for part in whole] == [(path,)]:
            return path.parent, whole
    return path, parts


def open_checkpoint(
    source: str,
    options: OpenOptions = DEFAULT_OPTIONS,
    *,
    called: str | None = None,
    left_out: Mapping[str, str] | None = None,
    open_file: Callable[[Path], WeightFile | None] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Checkpoint:
    """Open a weight file, an index of shards, or a folder: of a model, pipeline or adapter.

    `called` is what messages and manifests call it, `left_out` are files that are not here,
    `open_file` opens what lies elsewhere, `sizes` are those of the files there.
    Raises MissingError (not there) or CheckpointError (what is wrong, in which file).
    """
    path, parts = _found(Path(source), options)
    folder = path.is_dir()
    with ExitStack() as stack:
        files: list[WeightFile] = []
        components: dict[Place, str] = {}
        notes: list[str] = []
        for part in parts:
            opened = []
            for name in part.paths:
                far = open_file(name) if open_file else None
                file = far or _open_file(name, options)
                stack.callback(file.close)
                opened.append(file)
            _check_index(part, opened)
            components.update((file.path, part.component) for file in opened)
            files += opened
            notes += part.notes
        notes += [note for file in files for note in getattr(file, "notes", ())]
        notes += _metadata_notes(files)
        side_files: dict[str, SideFile] = {}
        others = dict(left_out or {})
        if folder and not options.safetensors_only:
            used = {file for part in parts for file in part.files()}
            side_files, found = find_side_files(
                path, used, code=options.trust_remote_code_files, apart=options.apart, sizes=sizes
            )
            others |= found
            notes += left_out_note(others)
        made = Checkpoint(
            called or source,
            files,
            components=components,
            folder=path if folder else None,
            layout={part.component: part.target for part in parts} if folder else None,
            side_files=side_files,
            left_out=others,
            notes=tuple(notes),
        )
        stack.pop_all()
        return made
