"""`pack`, `unpack` and `load_into` with ``--device``: `gpu.py --command` runs this."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from randes_cli import Bank, RunOptions


def model(state: dict[str, torch.Tensor], device: str) -> torch.nn.Module:
    """An empty module of these names, `layers.N.w`."""
    made, layers = torch.nn.Module(), torch.nn.ModuleList()
    for value in state.values():
        layer = torch.nn.Module()
        layer.w = torch.nn.Parameter(torch.empty_like(value, device=device))
        layers.append(layer)
    made.layers = layers
    return made


def time_commands(device: str) -> None:
    """`pack`, `unpack` and `load_into` by device; their files are equal."""
    layers, width = (56, 2048) if device == "cuda" else (2, 64)
    other = "cpu-torch" if device == "cpu" else device
    with tempfile.TemporaryDirectory() as place:
        folder, names = Path(place), ("base", "a", "b", "c", "d")
        state = {
            f"layers.{n}.w": 0.02 * torch.randn(width, width).bfloat16() for n in range(layers)
        }
        for name in names:
            moved = {
                k: (v.float() + 2e-4 * torch.randn(v.shape)).bfloat16() for k, v in state.items()
            }
            save_file(state if name == "base" else moved, folder / f"{name}.safetensors")
        files = [str(folder / f"{name}.safetensors") for name in names]
        for where in ("cpu", other):
            bank, out = folder / f"{where}.randes", folder / f"{where}-a.safetensors"
            for command in (
                ["pack", *files, "-o", str(bank)],
                ["unpack", str(bank), "--task", "a", "-o", str(out)],
            ):
                start = time.perf_counter()
                line = [sys.executable, "-m", "randes_cli", *command, "--device", where, "-q"]
                subprocess.run(line, check=True)
                print(f"{command[0]} --device {where}: {time.perf_counter() - start:.2f} s")
            module = model(state, "cuda" if device == "cuda" else "cpu")
            with Bank.open(bank, run=RunOptions(device=where)) as opened:
                for task in ("a", "b"):
                    start = time.perf_counter()
                    opened.load_into(module, task)
                    torch.cuda.synchronize() if device == "cuda" else None
                    taken = 1000 * (time.perf_counter() - start)
                print(f"load_into a module on {device}, --device {where}: {taken:.0f} ms")
        for pattern in ("{}.randes", "{}-a.safetensors"):
            pair = [(folder / pattern.format(where)).read_bytes() for where in ("cpu", other)]
            print(f"{pattern.format('*')} equal: {pair[0] == pair[1]}")
            assert pair[0] == pair[1]
