"""What `gpu.py` measures: a clock, and figures beside their goals, written as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

#: Names the file that figures of all parts are added to.
FILE = "RANDES_GPU_FIGURES"
#: Bits, groups, and which share of the elements a group has.
FORMS = ((2, 1, 1), (2, 8, 8), (2, 8, 1), (1, 8, 1), (1, 1, 1), (4, 1, 1), (8, 1, 1), (16, 1, 1))
ROWS = (16, 64)
BITS = (16, 8, 4, 2, 1)


def timed(run: Callable[[], Any], device: str, rounds: int = 9) -> float:
    """Median milliseconds, of a CUDA graph where there is a device."""
    start = time.perf_counter()
    run()
    if device != "cuda":
        return 1000 * (time.perf_counter() - start)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    taken = []
    for _ in range(rounds):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        graph.replay()
        last.record()
        torch.cuda.synchronize()
        taken.append(first.elapsed_time(last))
    return median(taken)


def step_name(rows: int, bits: int, groups: int, every: int) -> str:
    share = f" of 1/{every}" if every > 1 else ""
    return f"{rows} rows, {bits} bits × {groups} group{'s' * (groups > 1)}{share}"


def swap_name(bits: int) -> str:
    return f"swap, {bits} bits"


def traffic(bits: int, groups: int, every: int) -> float:
    """What a step must read, beside one model in 16 bits."""
    return 1 + bits * groups / 16 / every


def goals() -> dict[str, float]:
    """Of steps 1.25 × their traffic, beside one model; of swaps 1.3 × a copy."""
    steps = {step_name(rows, *form): 1.25 * traffic(*form) for form in FORMS for rows in ROWS}
    return steps | {swap_name(bits): 1.3 for bits in BITS}


def note(name: str, value: float) -> None:
    """Keep a figure at once: whatever ends this process, it is there."""
    place = os.environ.get(FILE)
    if place:
        with Path(place).open("a") as file:
            file.write(json.dumps([name, value]) + "\n")


def table(place: Path) -> str:
    """Goals beside what was measured (the last time)."""
    lines = place.read_text().splitlines() if place.exists() else []
    found: dict[str, float] = dict(json.loads(line) for line in lines)
    made = [f"{'beside one model, or a copy':38} {'goal':>5} {'found':>6}"]
    for name, goal in goals().items():
        value = found.get(name)
        told = "     –" if value is None else f"{value:6.2f} {'met' if value <= goal else 'missed'}"
        made.append(f"{name:38} {goal:5.2f} {told}")
    return "\n".join(made)
