"""Plans banks of real size from sparse files: headers as those of the models, data that are holes.

    python benchmarks/size.py [--folder SCRATCH] [--model llama-70b deepseek] [--tasks 100 20]

Prints for each step the CPU seconds, the wall seconds and the most memory. All tasks are one file
under several names, of which a few bytes of each tensor are there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Shapes = dict[str, list[int]]


def llama() -> Shapes:
    """Llama-3-70B."""
    shapes = {"model.embed_tokens.weight": [128256, 8192], "lm_head.weight": [128256, 8192]}
    layer = {
        "self_attn.q_proj": [8192, 8192],
        "self_attn.k_proj": [1024, 8192],
        "self_attn.v_proj": [1024, 8192],
        "self_attn.o_proj": [8192, 8192],
        "mlp.gate_proj": [28672, 8192],
        "mlp.up_proj": [28672, 8192],
        "mlp.down_proj": [8192, 28672],
        "input_layernorm": [8192],
        "post_attention_layernorm": [8192],
    }
    for number in range(80):
        for name, shape in layer.items():
            shapes[f"model.layers.{number}.{name}.weight"] = shape
    return shapes | {"model.norm.weight": [8192]}


def deepseek() -> Shapes:
    """DeepSeek-V3's layers, with experts enough for 90,000 tensors."""
    shapes = {"model.embed_tokens.weight": [129280, 7168], "lm_head.weight": [129280, 7168]}
    layer = {
        "self_attn.q_a_proj": [1536, 7168],
        "self_attn.q_b_proj": [24576, 1536],
        "self_attn.kv_a_proj_with_mqa": [576, 7168],
        "self_attn.kv_b_proj": [32768, 512],
        "self_attn.o_proj": [7168, 16384],
        "input_layernorm": [7168],
        "post_attention_layernorm": [7168],
        "mlp.gate": [512, 7168],
    }
    expert = {"gate_proj": [2048, 7168], "up_proj": [2048, 7168], "down_proj": [7168, 2048]}
    for number in range(61):
        for name, shape in layer.items():
            shapes[f"model.layers.{number}.{name}.weight"] = shape
        for other in range(489):
            for name, shape in expert.items():
                shapes[f"model.layers.{number}.mlp.experts.{other}.{name}.weight"] = shape
    return shapes | {"model.norm.weight": [7168]}


MODELS = {"llama-70b": (llama, 100), "deepseek": (deepseek, 20)}


def write(shapes: Shapes, path: Path, first: bytes) -> None:
    """A BF16 checkpoint of holes, but for each tensor's first bytes, and some in its middle.

    Those tell the tensors of a file apart; equal ones would be taken for one, and read whole.
    """
    header: dict[str, dict[str, Any]] = {}
    position = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        offsets = [position, position + size]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": offsets}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
        for number, entry in enumerate(header.values()):
            start, end = (8 + len(text) + offset for offset in entry["data_offsets"])
            file.seek(start)
            file.write(first)
            file.seek((start + end) // 4 * 2)
            digits = (number >> shift & 0x7F for shift in (0, 7, 14))
            file.write(b"".join((0x3C00 | digit).to_bytes(2, "little") for digit in digits))


def timed(words: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak bytes of a command.

    NumPy's products stay on one thread, as `randes` has it: size_bank.py is no command of it, and
    two threads that share a small product wait for each other's core.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        words,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{words[-1]}: ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss * 1024.0


def steps(folder: Path, tasks: list[Path], python: str) -> Iterator[tuple[str, list[str]]]:
    """What is measured: (what, command)."""
    randes = [python, "-m", "randes_cli"]
    base = str(folder / "base.safetensors")
    named = [base, *map(str, tasks), "--base", "reference"]
    bank = str(folder / "bank.randes")
    yield "dry run of pack", [*randes, "pack", *named, "-o", str(folder / "x.randes"), "--dry-run"]
    script = str(Path(__file__).with_name("size_bank.py"))
    yield "index and manifest", [python, script, bank, base, *map(str, tasks)]
    yield "inspect", [*randes, "inspect", bank]
    yield "dry run of unpack", [*randes, "unpack", bank, "--task", "task0", "--dry-run"]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tasks", type=int)
    options = parser.parse_args()
    for model in options.model:
        shapes, count = MODELS[model]
        folder = options.folder or Path(tempfile.mkdtemp(prefix="randes-size-"))
        folder.mkdir(parents=True, exist_ok=True)
        made = shapes()
        tasks = [folder / f"task{n}.safetensors" for n in range(options.tasks or count)]
        write(made, folder / "base.safetensors", b"\0\0")
        write(made, tasks[0], b"\0\x3c")
        for path in tasks[1:]:
            path.hardlink_to(tasks[0])
        print(f"{model}: {len(made):,} tensors, {len(tasks)} tasks")
        for what, words in steps(folder, tasks, sys.executable):
            cpu, wall, peak = timed(words)
            print(f"  {what}: {cpu:.1f} s of CPU, {wall:.1f} s, {peak / 1e6:.0f} MB", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
