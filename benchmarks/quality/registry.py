"""What people find on PyPI for many fine-tunes of one base, run as it is, in a process of its own.

Each is installed without its dependencies into the cache; the caller's torch is used. What it
writes is counted to the byte, base included, and what it gives back is scored like all else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from time import perf_counter

from beds import CACHE, load
from methods import Models, Packed

#: What is installed for each tool, at the versions that were measured.
TOOLS = {
    "deltatensors": ("deltatensors==0.2.0",),
    "sparse-llm": ("sparse-llm==0.0.5", "datasets"),
    "dmx-compress": ("dmx-compress==1.5.3", "zstandard", "soundfile", "brotli"),
}
FOLDER = CACHE / "pypi"

#: Programs: argv is base file, task file, what is stored, what comes back.
_DELTATENSORS = """
import sys, pathlib, deltatensors as dt
from safetensors.torch import save_file
base, task, stored, back = map(pathlib.Path, sys.argv[1:5])
dt.save_delta_from_paths(stored, task.parent, base.parent, strategy="{strategy}", use_gpu=False)
found = dt.load_delta_from_paths(stored, base.parent)
import torch
save_file({{k: torch.as_tensor(v).float().contiguous() for k, v in found.items()}}, back)
"""
_DMX = """
import runpy, sys
base, task, stored, back = sys.argv[1:5]
for words in (["delta-compress", base, task, stored], ["delta-reconstruct", base, stored, back]):
    sys.argv = ["dmx", *words]
    try:
        runpy.run_module("dmx_cli", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
"""

_SPARSE = """
import pathlib, sys, torch
from safetensors.torch import load_file, save_file
import decoder
from core import delta
base, task, stored, back = sys.argv[1:5]
def folder(path):
    model = decoder.new_model()
    decoder._restore(model, load_file(path))
    model.save_pretrained(pathlib.Path(path).parent)
    return str(pathlib.Path(path).parent)
base, task = folder(base), folder(task)
rank = {rank}
if rank:
    delta.compress_delta_svd_full(base, task, stored, rank=rank)
    model = delta.reconstruct_from_svd_delta(base, stored, device="cpu")
else:
    delta.compress_delta(base, task, stored, device="cpu")
    model = delta.reconstruct_from_delta(base, stored, device="cpu")
save_file({{k: v.float() for k, v in decoder._state(model).items()}}, back)
"""


def install(tool: str) -> Path:
    """The folder that a tool is installed in."""
    folder = FOLDER / tool
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*command, folder, *TOOLS[tool]], check=True)
    return folder


def _run(tool: str, program: str, base: Path, task: Path, folder: Path) -> tuple[Path, int, float]:
    """What came back of a task, the bytes that were stored, and the seconds that it took."""
    inside, stored, back = folder / task.stem, folder / f"{task.stem}.dmxd", folder / "back"
    for path in (inside, folder / "base", back):
        path.mkdir(exist_ok=True)
    copyfile(base, folder / "base" / "model.safetensors")
    copyfile(task, inside / "model.safetensors")
    made, start = back / f"{task.stem}.safetensors", perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-c", program),
            *(folder / "base" / "model.safetensors", inside / "model.safetensors", stored, made),
        ],
        check=True,
        capture_output=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (install(tool), Path(__file__).parent))),
            "OMP_NUM_THREADS": "1",
        },
    )
    files = [file for file in (stored, *stored.rglob("*")) if file.is_file()]
    return made, sum(file.stat().st_size for file in files), perf_counter() - start


def run_tool(tool: str, program: str) -> Callable[[Models, int], Packed]:
    """A file for each task, beside the base."""

    def build(models: Models, _: int) -> Packed:
        bed, total, states, seconds = models.bed, 0, {}, 0.0
        with TemporaryDirectory(dir=CACHE) as name:
            for task, path in bed.tasks.items():
                made, size, took = _run(tool, program, bed.base, path, Path(name))
                states[task], total, seconds = load(made), total + size, seconds + took
        nbytes = total + bed.base.stat().st_size
        facts = {"tool seconds": round(seconds, 1)}
        return Packed(nbytes, lambda task, knob: states[task], facts=facts)

    return build


def deltatensors(strategy: str) -> Callable[[Models, int], Packed]:
    """A `.wdelta` file for each task."""
    return run_tool("deltatensors", _DELTATENSORS.format(strategy=strategy))


def sparse(rank: int | None) -> Callable[[Models, int], Packed]:
    """A folder for each task, of a decoder: "lossless" in float16, or of so high a rank."""
    return run_tool("sparse-llm", _SPARSE.format(rank=rank))


def dmx() -> Callable[[Models, int], Packed]:
    """A lossless delta for each task."""
    return run_tool("dmx-compress", _DMX)
