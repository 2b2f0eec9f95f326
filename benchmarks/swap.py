"""Milliseconds of `Bank.load_into` for CLIP-shaped image encoders, beside a copy; prints JSON.

From banks of 16 and 2 bits, in float32 and bfloat16; `Pool` swaps on a CPU so, too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from randes_cli import Bank, PackOptions, RunOptions, TaskInput, pack

#: name: (width, layers, patch, tokens, projection) of a vision transformer.
ENCODERS = {"CLIP ViT-B/32": (768, 12, 32, 50, 512), "CLIP ViT-L/14": (1024, 24, 14, 257, 768)}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an image encoder's parameters."""
    width, layers, patch, tokens, projection = ENCODERS[name]
    made: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "positional_embedding": (tokens, width),
        "conv1_weight": (width, 3, patch, patch),
        "proj": (width, projection),
    }
    for layer in range(layers):
        made |= {
            f"{layer}_in_proj_weight": (3 * width, width),
            f"{layer}_in_proj_bias": (3 * width,),
            f"{layer}_out_proj_weight": (width, width),
            f"{layer}_out_proj_bias": (width,),
            f"{layer}_fc_weight": (4 * width, width),
            f"{layer}_fc_bias": (4 * width,),
            f"{layer}_proj_weight": (width, 4 * width),
            f"{layer}_proj_bias": (width,),
        }
        for part in ("ln1_weight", "ln1_bias", "ln2_weight", "ln2_bias"):
            made[f"{layer}_{part}"] = (width,)
    return made


def make_bank(name: str, folder: Path, dtype: torch.dtype, bits: int) -> Path:
    """A bank of two tasks over random weights."""
    kind = f"{name} {dtype} {bits}".replace("/", "-").replace(" ", "-")
    bank = folder / f"{kind}.randes"
    if bank.exists():
        return bank
    source = torch.Generator().manual_seed(0)
    base = {n: 0.03 * torch.randn(s, generator=source) for n, s in shapes(name).items()}
    paths = {task: folder / f"swap-{task}.safetensors" for task in ("base", "a", "b")}
    save_file({n: t.to(dtype) for n, t in base.items()}, paths["base"])
    for task in ("a", "b"):
        noise = {n: 3e-4 * torch.randn(t.shape, generator=source) for n, t in base.items()}
        save_file({n: (base[n] + noise[n]).to(dtype) for n in base}, paths[task])
    tasks = [TaskInput(t, str(paths[t])) for t in ("a", "b")]
    pack(str(paths["base"]), tasks, bank, PackOptions(bits=bits))
    for path in paths.values():
        path.unlink()
    return bank


def copied(module: torch.nn.Module, others: dict[str, torch.Tensor]) -> None:
    """What a swap takes where each task lies in memory whole."""
    for name, parameter in module.named_parameters():
        parameter.copy_(others[name])


def seconds(work: list[float]) -> float:
    """The median."""
    return sorted(work)[len(work) // 2]


def measure(
    name: str, folder: Path, dtype: torch.dtype, bits: int, threads: int, repeats: int
) -> dict[str, float]:
    """Milliseconds of the first swap, of later ones, and of a copy."""
    torch.set_num_threads(threads)
    module = torch.nn.Module()
    for parameter, shape in shapes(name).items():
        value = torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False)
        module.register_parameter(parameter, value)
    swaps, copies = [], []
    others = {n: torch.ones_like(p) for n, p in module.named_parameters()}
    path = make_bank(name, folder, dtype, bits)
    with Bank.open(path, run=RunOptions(threads=threads)) as bank:
        for turn in range(repeats):
            start = time.perf_counter()
            bank.load_into(module, "ab"[turn % 2])
            swaps.append(1000 * (time.perf_counter() - start))
            start = time.perf_counter()
            copied(module, others)
            copies.append(1000 * (time.perf_counter() - start))
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "first": swaps[0],
        "swap": seconds(swaps[2:]),
        "copy": seconds(copies[2:]),
    }


if __name__ == "__main__":
    found = {
        name: {
            f"{str(dtype)[6:]}, {bits} bits": measure(name, Path(sys.argv[1]), dtype, bits, 2, 15)
            for dtype in (torch.float32, torch.bfloat16)
            for bits in (16, 2)
        }
        for name in ENCODERS
    }
    print(json.dumps(found))
