"""Folders to pack: small weights, and the files beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from randes_cli.read.places import UnpackOptions
from randes_cli.specs import RunOptions, TaskInput

RUN = RunOptions(threads=1)
PLAIN = UnpackOptions()


def weights(seed: int) -> dict[str, np.ndarray]:
    base = np.random.default_rng(0)
    made = {f"layers.{n}.up.weight": base.standard_normal((8, 16), np.float32) for n in range(3)}
    move = np.random.default_rng(seed)
    return {n: w + 0.01 * move.standard_normal(w.shape, np.float32) for n, w in made.items()}


def folder(path: Path, seed: int, **files: str) -> TaskInput:
    path.mkdir()
    save_file(weights(seed), path / "model.safetensors", {"format": "pt"})
    for name, text in {"config.json": "{}", **files}.items():
        (path / name).write_text(text)
    return TaskInput(path.name, str(path))


def names(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
