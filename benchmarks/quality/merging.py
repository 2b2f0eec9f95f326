"""TIES and DARE by mergekit itself, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from beds import CACHE, load
from methods import Models, Packed

sys.path.append(str(Path(__file__).parents[1]))

from mergekit import install


def _run(recipe: dict[str, object], folder: Path, seed: int) -> Path:
    """The checkpoint that mergekit makes of any safetensors files."""
    file, out = folder / "merge.yml", folder / "merged"
    file.write_text(json.dumps(recipe), "utf-8")
    commands = install(CACHE)
    subprocess.run(
        [commands / "python", commands / "mergekit-pytorch", file, out, "--random-seed", str(seed)],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return out / "model.safetensors"


def merged(method: str, density: float, **more: object) -> Callable[[Models, int], Packed]:
    """One model of all, with every weight 1; λ multiplies what mergekit adds to the base.

    `density` is the share of a tensor's values that is kept.
    """

    def build(models: Models, seed: int) -> Packed:
        settings = {"weight": 1.0, "density": density}
        recipe: dict[str, object] = {
            "merge_method": method,
            "base_model": str(models.bed.base),
            "models": [
                {"model": str(path), "parameters": settings} for path in models.bed.tasks.values()
            ],
            "parameters": {"lambda": 1.0, **more},
            "dtype": "float32",
        }
        with TemporaryDirectory(dir=CACHE) as folder:
            made = load(_run(recipe, Path(folder), seed))
        delta = {name: (made[name] - models.base[name]).numpy() for name in models.names}
        return Packed(models.base_bytes, lambda task, knob: models.state(delta, knob))

    return build


#: Yadav et al. 2023: trim to the largest fifth, elect a sign, average what agrees.
ties = merged("ties", 0.2, normalize=True)


def dare(drop: float) -> Callable[[Models, int], Packed]:
    """Drop values at random, scale up the rest, then task arithmetic (Yu et al. 2024)."""
    return merged("dare_linear", 1 - drop, normalize=False, rescale=True)
