"""Seconds that `Bank.load_into` takes for CLIP-shaped image encoders; prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from randes_cli import Bank, RunOptions, TaskInput, pack

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


def make_bank(name: str, folder: Path) -> Path:
    """A bank of two tasks over random float32 weights."""
    bank = folder / f"{name.replace('/', '-').replace(' ', '-')}.randes"
    if bank.exists():
        return bank
    source = torch.Generator().manual_seed(0)
    base = {n: 0.03 * torch.randn(s, generator=source) for n, s in shapes(name).items()}
    paths = {task: folder / f"swap-{task}.safetensors" for task in ("base", "a", "b")}
    save_file(base, paths["base"])
    for task in ("a", "b"):
        noise = {n: 3e-4 * torch.randn(t.shape, generator=source) for n, t in base.items()}
        save_file({n: base[n] + noise[n] for n in base}, paths[task])
    pack(str(paths["base"]), [TaskInput(t, str(paths[t])) for t in ("a", "b")], bank)
    for path in paths.values():
        path.unlink()
    return bank


def plain_loop(module: torch.nn.Module, sums: dict[str, torch.Tensor]) -> None:
    """What retrieval costs with everything in memory: base plus signed float32 superposition."""
    for name, parameter in module.named_parameters():
        torch.addcmul(parameter, sums[name], sums[name], value=1e-9, out=parameter)


def seconds(work: list[float]) -> float:
    """The median."""
    return sorted(work)[len(work) // 2]


def measure(name: str, folder: Path, threads: int, repeats: int) -> dict[str, float]:
    """Milliseconds of the first swap, of later ones, and of the loop in memory."""
    torch.set_num_threads(threads)
    module = torch.nn.Module()
    for parameter, shape in shapes(name).items():
        module.register_parameter(parameter, torch.nn.Parameter(torch.zeros(shape)))
    swaps, loops = [], []
    sums = {n: torch.ones_like(p) for n, p in module.named_parameters()}
    with (
        Bank.open(make_bank(name, folder), run=RunOptions(threads=threads)) as bank,
        torch.no_grad(),
    ):
        for turn in range(repeats):
            start = time.perf_counter()
            bank.load_into(module, "ab"[turn % 2])
            swaps.append(1000 * (time.perf_counter() - start))
            start = time.perf_counter()
            plain_loop(module, sums)
            loops.append(1000 * (time.perf_counter() - start))
    parameters = sum(p.numel() for p in module.parameters())
    return {
        "parameters": parameters,
        "first": swaps[0],
        "swap": seconds(swaps[2:]),
        "loop": seconds(loops[2:]),
    }


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(json.dumps({name: measure(name, where, 2, 15) for name in ENCODERS}))
