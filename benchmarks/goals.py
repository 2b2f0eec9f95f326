"""The goals that speed is held against, and what is measured for them alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import Taken, measure, median, randes

#: Seconds that a command may take beyond Python's own start; of 100,000 small tensors and three
#: tasks seconds and MB of `pack`, and seconds of `inspect`.
START, SMALL_PACK, SMALL_MEMORY, SMALL_INSPECT = 0.15, 6.0, 300.0, 1.0
#: Milliseconds of `Bank.load_into` in float32, by the shapes' name in swap.py.
SWAP = {"ViT-B/32": 60.0, "ViT-L/14": 165.0}
_SHAPES = ((16, 16), (32,), (8, 24))
_SMALL = 100_000


def write_small(path: Path, seed: int, base: Any = None, count: int = _SMALL) -> Any:
    """A checkpoint of many small float32 tensors; its values."""
    header, place = dict[str, Any](), 0
    for number in range(count):
        shape = _SHAPES[number % 3]
        name = f"layers.{number // 3}.{'abc'[number % 3]}.weight"
        end = place + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, end]}
        place = end
    values = np.random.default_rng(seed).standard_normal(place // 4).astype(np.float32)
    values = values if base is None else base + np.float32(0.01) * values
    text = json.dumps(header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + values.tobytes())
    return values


def _taken(words: list[str], folder: Path, repeats: int) -> Taken:
    return median([measure(words, folder / "log.txt") for _ in range(repeats)])


def measure_goals(folder: Path) -> dict[str, float]:
    """What `START` and the `SMALL` goals are held against."""
    paths = [folder / f"small{number}.safetensors" for number in range(4)]
    tiny = [folder / f"tiny{number}.safetensors" for number in range(4)]
    for made, count in ((paths, _SMALL), (tiny, 12)):
        base = write_small(made[0], 0, count=count)
        for seed, path in enumerate(made[1:], 1):
            write_small(path, seed, base, count)
    small, little = folder / "small.randes", folder / "tiny.randes"
    for made, bank in ((paths, small), (tiny, little)):
        words = [f"t{number}={path}" for number, path in enumerate(made[1:])]
        command = randes("pack", made[0], *words, "-o", bank, "--quiet", "--force")
        packed = measure(command, folder / "log.txt")
        if made is paths:
            small_pack = packed
    empty = _taken([sys.executable, "-c", "pass"], folder, 9)
    shown = _taken(randes("inspect", little), folder, 9)
    looked = _taken(randes("inspect", small), folder, 3)
    return {
        "start": shown.seconds - empty.seconds,
        "small pack": small_pack.seconds,
        "small memory": small_pack.anonymous,
        "small inspect": looked.seconds,
    }


def goal_lines(found: dict[str, Any]) -> Iterator[str]:
    """The goals beside what was measured, as a Markdown table."""
    yield "| job | goal | measured | CPU |"
    yield "|---|---|---|---|"
    for row in found["jobs"]:
        if "goal" in row:
            cpu = row["cpu"] / max(row["limit_cpu"], 1e-9)
            yield (
                f"| {row['job']}, {row['size']} × {row['tasks']} | ≤ {row['goal']} × the copy "
                f"| {row['ratio']:.2f} × | {cpu:.2f} × |"
            )
    made = found.get("goals", {})
    if made:
        yield f"| start of `inspect` | ≤ {START} s beyond Python | {made['start']:.2f} s | |"
        yield (
            f"| 100,000 small tensors, three tasks: pack | ≤ {SMALL_PACK:.0f} s, "
            f"≤ {SMALL_MEMORY:.0f} MB | {made['small pack']:.0f} s, "
            f"{made['small memory']:.0f} MB | |"
        )
        yield f"| inspect of them | ≤ {SMALL_INSPECT:.0f} s | {made['small inspect']:.1f} s | |"
    for name, kinds in found.get("swap", {}).items():
        live = next(most for key, most in SWAP.items() if key in name)
        goals = {"float32, 16 bits": live, "float32, 2 bits": 1.5 * live}
        for kind, ways in kinds.items():
            for way in ("load_into", "Pool"):
                most = f"≤ {goals[kind]:.0f} ms" if kind in goals else ""
                goal = "≤ 1.5 × a copy" if way == "Pool" else most
                taken = f"{ways[way][1]:.0f} ms, {ways[way][1] / ways['copy'][1]:.1f} × a copy"
                yield f"| {way} {name}, {kind} | {goal} | {taken} | |"
