"""Models that lie elsewhere, on the Hub or in a store: what a folder of theirs would give.

Which files are the weights is decided by `find_parts`, as for a folder here: it is shown a
passing folder of empty files with the names that are there, and its small JSON files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from randes_cli.errors import HubError, MissingError, NoSpace, RandesError, UsageError
from randes_cli.files.checkpoint.checkpoint import (
    DEFAULT_OPTIONS,
    Checkpoint,
    find_parts,
    open_checkpoint,
)
from randes_cli.files.kinds import SUFFIXES
from randes_cli.files.local.disk import system_errors
from randes_cli.files.passing import passing_folder
from randes_cli.files.side_files import STATES, find_side_files
from randes_cli.files.weight_file import WeightFile
from randes_cli.files.weight_names import PICKLES
from randes_cli.specs import OpenOptions
from randes_cli.workers import at_once

#: JSON files that say which files are the weights and whether they can be read.
_TELLING = re.compile(
    r"(adapter_|quantize_|hf_quant_|router_)?config\.json|model_index\.json|modules\.json"
    r"|.+\.index(\.[\w-]+)?\.json"
)


@dataclass(frozen=True)
class Elsewhere:
    """Files that lie elsewhere under one name.

    Attributes:
        name: what messages call their root; with `colon` a path in it follows a colon.
        path: the file or folder among them that was named; "" is all.
        sizes: bytes of every file.
        get: brings a file to a place here.
        open_file: opens a safetensors file where it is.
    """

    name: str
    path: str
    sizes: Mapping[str, int]
    get: Callable[[str, Path], None]
    open_file: Callable[[str], WeightFile]
    joint: str = "/"

    def telling(self) -> tuple[str, ...]:
        """The JSON files to read: of the folder itself, and of those below it with weights."""
        if self.path in self.sizes:
            return (self.path,) if _TELLING.fullmatch(PurePosixPath(self.path).name) else ()
        root = PurePosixPath(self.path)
        ends = (*SUFFIXES, *PICKLES)
        below = {PurePosixPath(name).parent for name in self.sizes if name.endswith(ends)}
        folders = {root} | {
            folder
            for folder in below
            if folder.is_relative_to(root) and not any(map(STATES.fullmatch, folder.parts))
        }
        paths = map(PurePosixPath, self.sizes)
        return tuple(str(p) for p in paths if p.parent in folders and _TELLING.fullmatch(p.name))

    def inside(self) -> dict[str, int]:
        """Sizes of the files of the folder that was named, by their names in it."""
        here = f"{self.path}/" if self.path else ""
        return {n.removeprefix(here): size for n, size in self.sizes.items() if n.startswith(here)}

    def bring(self, names: Collection[str], root: Path) -> None:
        """Bring files to a folder here, several at a time."""

        def one(name: str) -> None:
            with system_errors(root / name, "writing"):
                self.get(name, root / name)

        at_once(one, names)

    @contextmanager
    def outline(self) -> Iterator[Path]:
        """A passing folder with the names that are there: empty files, but for the telling ones.

        An error inside names what lies elsewhere, not the passing folder, unless that is full.
        """
        with passing_folder() as root:
            try:
                for name in self.sizes:
                    _touch(root / name)
                self.bring(self.telling(), root)
                yield root
            except RandesError as error:
                if str(root) not in str(error) or isinstance(error, (HubError, NoSpace)):
                    raise
                text = str(error).replace(f"{root}/", f"{self.name}{self.joint}")
                raise type(error)(text.replace(str(root), self.name)) from error


def _touch(path: Path) -> None:
    """Make an empty file, unless no disk has its name: one that is too long, or below a file's."""
    refused = suppress(UsageError, MissingError, ValueError)
    with refused, system_errors(path, "making"), suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a model.

    Attributes:
        weights: the files that hold the tensors.
        side_files: config, tokenizer and the like.
        left_out: the other files that it has, each with the reason why it stays there.
    """

    weights: tuple[str, ...]
    side_files: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


def find_model(there: Elsewhere, root: Path, options: OpenOptions = DEFAULT_OPTIONS) -> Found:
    """The weights and side files of what was named, from names, sizes and an `outline`.

    Raises CheckpointError where there are no weights that randes reads.
    """
    path = root / there.path
    parts = find_parts(path, options)
    weights = tuple(p.relative_to(root).as_posix() for part in parts for p in part.paths)
    if not path.is_dir() or options.safetensors_only:
        return Found(weights)
    used = {file for part in parts for file in part.files()}
    code = options.trust_remote_code_files
    sizes = there.inside()
    found, left_out = find_side_files(path, used, code=code, apart=options.apart, sizes=sizes)
    names = tuple((path / name).relative_to(root).as_posix() for name in found)
    return Found(weights, names, left_out)


def open_elsewhere(
    there: Elsewhere, options: OpenOptions = DEFAULT_OPTIONS, *, called: str
) -> Checkpoint:
    """A model whose tensors are read where they are, by range, checked as those of a local one.

    Side files are brought here for as long as it is open, and so are pickled weights, which have
    no header. Raises what opening a checkpoint here raises, and HubError.
    """
    with ExitStack() as stack:
        root = stack.enter_context(there.outline())
        found = find_model(there, root, options)
        there.bring(found.side_files, root)
        pickled = [name for name in found.weights if not name.endswith(SUFFIXES)]
        there.bring(pickled, root)
        names = [name for name in found.weights if name not in pickled]
        opened = dict(zip(names, at_once(there.open_file, names), strict=True))

        def open_file(path: Path) -> WeightFile | None:
            return opened.get(path.relative_to(root).as_posix())

        folder, sizes = root / there.path, there.inside()
        for path in (root / name for name in found.side_files):  # it may be another by now
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
        made = open_checkpoint(
            str(folder),
            options,
            called=called,
            open_file=open_file,
            sizes=sizes,
        )
        made.held = stack.pop_all()
        return made
