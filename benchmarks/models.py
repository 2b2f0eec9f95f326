"""Makes random llama-like checkpoints for the benchmarks, streamed to disk.

A fine-tune is the base plus noise of about 1 % of each weight's RMS. Values are windows of one
pool of normal numbers at seeded places, so that gigabytes are written at the speed of the disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: Elements made at once.
_PIECE = 2**20
#: Size of a fine-tune's delta relative to the weight.
_DELTA = 0.01
#: Bytes that stay free on the disk.
_SPARE = 4 * 2**30


@dataclass(frozen=True)
class Size:
    """A llama-like architecture: about `name` parameters."""

    name: str
    hidden: int
    inner: int
    layers: int
    vocabulary: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor names and shapes, in the order of the file."""
        hidden, inner = self.hidden, self.inner
        made: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, hidden)}
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            for part in "qkvo":
                made[f"{prefix}self_attn.{part}_proj.weight"] = (hidden, hidden)
            made[f"{prefix}mlp.gate_proj.weight"] = (inner, hidden)
            made[f"{prefix}mlp.up_proj.weight"] = (inner, hidden)
            made[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
            made[f"{prefix}input_layernorm.weight"] = (hidden,)
            made[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
        made["model.norm.weight"] = (hidden,)
        return made

    @property
    def parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes().values())

    @property
    def nbytes(self) -> int:
        """Bytes of one bfloat16 checkpoint, without its header."""
        return 2 * self.parameters


SIZES = {
    size.name: size
    for size in (
        Size("1M", 64, 128, 2, 14_000),
        Size("62M", 768, 2048, 4, 43_776),
        Size("124M", 768, 2048, 12, 50_257),
        Size("248M", 1024, 2816, 16, 41_984),
        Size("506M", 1536, 4096, 16, 34_560),
        Size("1B", 2048, 5632, 18, 32_000),
        Size("2B", 2560, 6912, 24, 32_000),
    )
}


def _header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bfloat16(values: F32) -> NDArray[np.uint16]:
    """The upper halves, rounded half up: random weights need no better."""
    words = values.view(np.uint32)
    np.add(words, np.uint32(0x8000), out=words)
    return np.ascontiguousarray(values.view(np.uint16)[1::2])


def _pieces(size: Size, task: int | None, pool: F32) -> Iterator[NDArray[np.uint16]]:
    where = np.random.default_rng(0)
    noise = np.random.default_rng([1, 0 if task is None else task + 1])
    for shape in size.shapes().values():
        scale = 1.0 if len(shape) == 1 else shape[-1] ** -0.5
        left = prod(shape)
        while left:
            count = min(left, _PIECE)
            start = int(where.integers(len(pool) - count))
            values = pool[start : start + count] * np.float32(scale)
            if task is not None:
                start = int(noise.integers(len(pool) - count))
                values += pool[start : start + count] * np.float32(_DELTA * scale)
            yield _bfloat16(values)
            left -= count


def _write(size: Size, task: int | None, pool: F32, path: Path) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(_header(size.shapes()))
        for piece in _pieces(size, task, pool):
            file.write(piece.data)
    os.replace(temporary, path)


def make_models(size: Size, tasks: int, folder: Path) -> list[Path] | None:
    """Paths of the base and of `tasks` fine-tunes; None where the disk is short.

    Files of an earlier call are used again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [None, *range(tasks)]
    stems = [f"{size.name}-{'base' if task is None else f'task{task}'}" for task in names]
    paths = [folder / f"{stem}.safetensors" for stem in stems]
    missing = [(task, path) for task, path in zip(names, paths, strict=True) if not path.exists()]
    # The job that follows writes a bank of twice a checkpoint's size.
    need = (len(missing) + 2) * size.nbytes + _SPARE
    if shutil.disk_usage(folder).free < need:
        return None
    pool = np.random.default_rng(7).standard_normal(2**24, dtype=np.float32)
    for task, path in missing:
        _write(size, task, pool, path)
    return paths
