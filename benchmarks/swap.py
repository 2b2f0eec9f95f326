"""Milliseconds of swaps of CLIP-shaped image encoders, beside a copy of one; prints JSON.

By `Pool`, from memory, and by `Bank.load_into`, which reads the bank each time; from banks of 16, 8
and 2 bits, in float32 and bfloat16.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from randes_cli import Bank, PackOptions, Pool, RunOptions, TaskInput, pack

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


def timed(work: Callable[[str], object], repeats: int) -> list[float]:
    """Milliseconds of the first turn, and the median of the later ones."""
    taken = []
    for turn in range(repeats):
        time.sleep(0.01)  # torch's threads look for more work for a while after a copy
        start = time.perf_counter()
        work("ab"[turn % 2])
        taken.append(1000 * (time.perf_counter() - start))
    return [taken[0], median(taken[2:])]


def measure(
    name: str, folder: Path, dtype: torch.dtype, bits: int, threads: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of the first and of later turns, of each way and of a copy."""
    torch.set_num_threads(threads)
    module = torch.nn.Module()
    for parameter, shape in shapes(name).items():
        value = torch.nn.Parameter(torch.zeros(shape, dtype=dtype), requires_grad=False)
        module.register_parameter(parameter, value)
    others = {n: torch.ones_like(p) for n, p in module.named_parameters()}
    run = RunOptions(threads=threads)
    with (
        Bank.open(make_bank(name, folder, dtype, bits), run=run) as bank,
        Pool(bank, module) as pool,
    ):

        def use(task: str) -> None:
            with pool.use(task):
                pass

        return {
            "copy": timed(lambda _: copied(module, others), repeats),
            "Pool": timed(use, repeats),
            "load_into": timed(lambda task: bank.load_into(module, task), repeats),
        }


if __name__ == "__main__":
    found = {
        name: {
            f"{str(dtype)[6:]}, {bits} bits": measure(name, Path(sys.argv[1]), dtype, bits, 2, 15)
            for dtype in (torch.float32, torch.bfloat16)
            for bits in (16, 8, 2)
        }
        for name in ENCODERS
    }
    print(json.dumps(found))
