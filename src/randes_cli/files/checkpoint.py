"""One reader for every checkpoint: a single file, or a folder with one file or shards."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from randes_cli.errors import CheckpointError, InputOutputError, MissingError
from randes_cli.files.atomic import wrap_os_error
from randes_cli.files.header import Header, parse_json, read_header
from randes_cli.specs import TensorInfo

SUFFIXES = (".safetensors", ".st")
_INDEX = ".safetensors.index.json"
#: File names of the weights in a folder, best first: transformers, diffusers, PEFT.
_WEIGHTS = ("model", "diffusion_pytorch_model", "adapter_model", "pytorch_model")
_QUANTISED = (
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".absmax",
    ".quant_state",
    ".weight_scale_inv",
    ".SCB",
    ".quant_map",
)


class TensorSource(Protocol):
    """A safetensors file whose bytes can be had by offset, wherever it lies."""

    path: Path
    header: Header

    def read_at(self, offset: int, out: NDArray[np.uint8], /) -> None:
        """Fill `out` from `offset`."""

    def close(self) -> None:
        """Let go of it."""


class TensorFile:
    """One open safetensors file. Reads are positioned, so threads share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise wrap_os_error(error, path, "opening") from error
        try:
            if not os.path.isfile(path):
                raise CheckpointError(f"{path}: not a regular file")
            self.header: Header = read_header(self.fd, str(path))
        except BaseException:
            os.close(self.fd)
            raise

    def read_at(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` from `offset`. Raises CheckpointError where the file ends early."""
        view = memoryview(out)
        try:
            while view:
                done = os.preadv(self.fd, [view], offset)
                if not done:
                    raise CheckpointError(f"{self.path}: truncated while it was read")
                view, offset = view[done:], offset + done
        except OSError as error:
            reason = InputOutputError(f"{self.path}: {error.strerror} while reading")
            raise (
                reason if error.errno == errno.EIO else wrap_os_error(error, self.path, "reading")
            ) from error

    def close(self) -> None:
        """Close the file; further reads fail."""
        os.close(self.fd)


Opener = Callable[[Path], TensorSource]


class Checkpoint:
    """Named tensors in one or more files.

    Attributes:
        source: what the user named, for messages.
        tensors: by name, in the order of the files and of their data.
        metadata: ``__metadata__`` of the first file.
        files: the files that the tensors lie in.
    """

    def __init__(self, source: str, files: Sequence[TensorSource]) -> None:
        self.source = source
        self.files = files
        self.tensors: dict[str, TensorInfo] = {}
        self._where: dict[str, tuple[TensorSource, int]] = {}
        self.metadata: Mapping[str, str] = files[0].header.metadata if files else {}
        for file in files:
            for name, tensor in file.header.tensors.items():
                if name in self.tensors:
                    raise CheckpointError(f"{file.path}: tensor {name!a} is in two shards")
                self.tensors[name] = tensor
                self._where[name] = file, file.header.starts[name]
        packed = next((n for n in self.tensors if n.endswith(_QUANTISED)), None)
        if packed:
            raise CheckpointError(
                f"{source}: tensor {packed!a} belongs to quantised weights; "
                "give the unquantised checkpoint"
            )

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` of its data."""
        file, offset = self._where[name]
        file.read_at(offset + start, out)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _read_index(path: Path) -> dict[str, str]:
    """The weight_map of a sharded checkpoint, with file names checked."""
    try:
        index = parse_json(path.read_bytes())
    except OSError as error:
        raise wrap_os_error(error, path, "reading") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{path}: has no weight_map")
    for name, file in weights.items():
        if not isinstance(file, str) or file in ("", ".", "..") or set(file) & set("/\\\0:"):
            raise CheckpointError(f"{path}: weight_map[{name!a}]: bad file name {str(file)!a}")
    return weights


def _open_all(source: str, paths: list[Path], open_file: Opener) -> Checkpoint:
    files: list[TensorSource] = []
    try:
        for path in paths:
            files.append(open_file(path))
        return Checkpoint(source, files)
    except BaseException:
        for file in files:
            file.close()
        raise


def _shards(index: Path) -> list[Path]:
    names = sorted(set(_read_index(index).values()))
    for name in names:
        if not (index.parent / name).exists():
            raise CheckpointError(f"{index}: shard {name} is missing")
    return [index.parent / name for name in names]


def _check_index(checkpoint: Checkpoint, index: Path) -> None:
    weights = _read_index(index)
    held = {name: file.path.name for file in checkpoint.files for name in file.header.tensors}
    problem = next((n for n in weights if held.get(n) != weights[n]), None)
    surplus = next((n for n in held if n not in weights), None)
    if problem or surplus:
        checkpoint.close()
        where = (
            f"{weights[problem]} lacks tensor {problem!a}"
            if problem
            else (f"{held[str(surplus)]} has tensor {surplus!a} that the index does not name")
        )
        raise CheckpointError(f"{index}: {where}")


def _find_in_folder(folder: Path) -> Path:
    """The weight file or index of a folder; a whole file before shards, as transformers has it."""
    for stem in _WEIGHTS:
        whole, index = folder / f"{stem}.safetensors", folder / f"{stem}{_INDEX}"
        for path in (whole, index):
            if path.exists():
                return path
    found = sorted(p for p in folder.iterdir() if p.name.endswith((*SUFFIXES, _INDEX)))
    indexes = [p for p in found if p.name.endswith(_INDEX)]
    if len(indexes) == 1:
        return indexes[0]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.name for p in found[:3])
        raise CheckpointError(f"{folder}: has {len(found)} weight files ({names} …); name one")
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        raise CheckpointError(
            f"{folder}: only pickled weights ({pickles[0]}); convert them to safetensors"
        )
    raise CheckpointError(f"{folder}: no safetensors file in this folder")


def _entry(path: Path) -> Path:
    """The weight file or index that a path means."""
    if not path.exists():
        raise MissingError(f"{path}: not found")
    return _find_in_folder(path) if path.is_dir() else path


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of what `open_checkpoint` takes; none is opened."""
    entry = _entry(path)
    return _shards(entry) if entry.name.endswith(_INDEX) else [entry]


def open_checkpoint(
    path: str, *, source: str | None = None, open_file: Opener = TensorFile
) -> Checkpoint:
    """Open a .safetensors or .st file, an index file, or a folder of them.

    `source` is what messages call it; `open_file` opens a weight file that lies elsewhere.
    Raises MissingError (not there) or CheckpointError (what is wrong, in which file).
    """
    entry = _entry(Path(path))
    if not entry.name.endswith(_INDEX):
        return _open_all(source or path, [entry], open_file)
    checkpoint = _open_all(source or path, _shards(entry), open_file)
    _check_index(checkpoint, entry)
    return checkpoint
