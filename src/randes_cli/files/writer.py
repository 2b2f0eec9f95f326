"""Writes checkpoints: one safetensors file, or shards with their index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from randes_cli.files.atomic import atomic_file
from randes_cli.files.json_text import encode_header
from randes_cli.files.local.disk import OutputFile
from randes_cli.files.weight_names import index_name
from randes_cli.specs import ITEM_SIZE, TensorInfo


def split_shards(tensors: Sequence[TensorInfo], most: int | None) -> list[list[TensorInfo]]:
    """Tensors in files of at most `most` bytes of data (a larger tensor has one of its own)."""
    return [sorted(shard, key=lambda t: -ITEM_SIZE[t.dtype]) for shard in _cut(tensors, most)]


def _cut(tensors: Sequence[TensorInfo], most: int | None) -> list[Sequence[TensorInfo]]:
    """The same in the order in which they came."""
    if most is None:
        return [tensors]
    shards: list[list[TensorInfo]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return [*shards]


def weight_files(
    path: Path, tensors: Sequence[TensorInfo], *, shard_bytes: int | None
) -> list[Path]:
    """The files that `checkpoint_writer` makes for `path`: itself, or shards and their index."""
    count = len(_cut(tensors, shard_bytes))
    if count == 1:
        return [path]
    shards = [path.with_name(_shard_name(path, number, count)) for number in range(count)]
    return [*shards, path.with_name(index_name(path.name))]


class CheckpointWriter:
    """Open output files with room for every tensor; writes go to known offsets."""

    def __init__(self) -> None:
        self._where: dict[str, tuple[OutputFile, int]] = {}

    def add(self, file: OutputFile, tensors: Sequence[TensorInfo], header: bytes) -> None:
        """Take an open file that begins with `header` and will hold `tensors` in this order."""
        file.write_at(header, 0)
        position = len(header)
        for tensor in tensors:
            self._where[tensor.name] = file, position
            position += tensor.nbytes
        file.reserve(position)
        file.resize(position)

    def place(self, name: str) -> tuple[OutputFile, int]:
        """The file that a tensor is written to, and the offset of its first byte."""
        return self._where[name]

    def write(self, name: str, start: int, data: object) -> None:
        """Write bytes of a tensor from byte `start` of its data."""
        file, offset = self._where[name]
        file.write_at(data, offset + start)


@contextmanager
def checkpoint_writer(
    path: Path,
    tensors: Sequence[TensorInfo],
    metadata: Mapping[str, str],
    *,
    shard_bytes: int | None,
    force: bool,
) -> Iterator[CheckpointWriter]:
    """Write a checkpoint that appears when the block ends well.

    `path` is the file, or where more than `shard_bytes` of data ask for shards the file that
    they are named after: ``model.safetensors`` gives ``model-00001-of-00003.safetensors`` and
    ``model.safetensors.index.json``, which is committed last.
    """
    shards = split_shards(tensors, shard_bytes)
    single = len(shards) == 1
    with ExitStack() as stack:
        if not single:
            index = stack.enter_context(
                atomic_file(path.with_name(index_name(path.name)), force=force)
            )
            index.write_at(_index(path, shards), 0)
        writer = CheckpointWriter()
        for number, shard in enumerate(shards):
            target = path if single else path.with_name(_shard_name(path, number, len(shards)))
            file = stack.enter_context(atomic_file(target, force=force))
            writer.add(file, shard, encode_header(shard, metadata))
        yield writer


def shards_of(name: str, names: Iterable[str]) -> list[str]:
    """Names that look like those of shards of a file of weights, whoever wrote them."""
    path = Path(name)
    pattern = re.compile(rf"{re.escape(path.stem)}-\d{{5}}-of-\d{{5}}{re.escape(path.suffix)}")
    return [one for one in names if pattern.fullmatch(one)]


def _shard_name(path: Path, number: int, count: int) -> str:
    return f"{path.stem}-{number + 1:05d}-of-{count:05d}{path.suffix}"


def _index(path: Path, shards: list[list[TensorInfo]]) -> bytes:
    weights = {
        tensor.name: _shard_name(path, number, len(shards))
        for number, shard in enumerate(shards)
        for tensor in shard
    }
    total = sum(tensor.nbytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
    return (json.dumps(index, indent=2) + "\n").encode()
