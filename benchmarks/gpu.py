"""What runs models from a bank, on a GPU: checked and timed in under eight minutes.

    python benchmarks/gpu.py [--layers 32] [--device cuda] [--command] [--beside FOLDER]

Matrices are random, of a 7B Llama in bf16. Checked: a swap by kernel has the bits of torch's
operations, a mixed step is near plain torch, and so are small models from a bank. Timed, as CUDA
graphs: the forms that products may have, for the shapes that missed their goal (`gpu_forms.py`); a
step of 16 and 64 rows of different tasks, at several bits, in one group and in eight, beside one
model and beside superpositions in bf16; a swap beside a copy of the base; prefill; and `Pool` and
`attach` as Python runs them. `--command` times `pack`, `unpack` and `load_into` with ``--device
cpu`` and ``cuda``, whose files must be equal. `--beside` times the steps of another commit, too:
``mkdir old; git archive 1ade4fa src benchmarks | tar -x -C old`` has that from before the kernels'
arithmetic was rewritten. Each part is a process of its own: one that fails is told, and the others
run. Without a GPU it says so and does nothing; ``TRITON_INTERPRET=1 … --device cpu --layers 0``
runs the checks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_data import group, plain, stacks, weights
from torch.nn import functional as F  # noqa: N812

from randes_cli.core.convert import LARGEST
from randes_cli.core.fused_run import SIGNS
from randes_cli.core.signs import many_signs
from randes_cli.live import kernels, stack
from randes_cli.live.codes import unpack
from randes_cli.live.group import Group
from randes_cli.live.held import made_dense
from randes_cli.live.selection import Selection
from randes_cli.specs import Signs

SHAPES = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
BITS = (16, 8, 4, 2, 1)
#: Bits, groups, and which share of the elements a group has.
FORMS = ((16, 1, 1), (8, 1, 1), (4, 1, 1), (2, 1, 1), (1, 1, 1), (2, 8, 8), (2, 8, 1), (1, 8, 1))
#: All parts together.
MOST_SECONDS = 470


def timed(run: Callable[[], Any], device: str, rounds: int = 9) -> float:
    """Median milliseconds, of a CUDA graph where there is one."""
    run()
    if device != "cuda":
        return 0.0
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    taken = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end))
    return median(taken)


def check_steps(device: str, dtype: torch.dtype) -> None:
    """A step by kernel is near that of plain torch."""
    forms = ((16, 1, 1), (16, 8, 1), (64, 8, 2))
    for bits, shape, (rows, groups, every) in product((*BITS, 3), ((96, 256), (80, 416)), forms):
        (base,) = weights([shape], device, dtype)
        (one,) = stacks([base], bits, rows, groups, every)
        x = torch.randn(rows, shape[1], device=device, dtype=dtype)
        found = one.linear(x, base, Selection.of(range(rows), base.device))
        assert found is not None
        wanted = plain(x, base, one.groups)
        error = float((found.float() - wanted).abs().max() / wanted.abs().max())
        verdict = "ok" if error < 2e-2 else "WRONG"
        print(
            f"check step  {bits:2} bits, {shape}, {rows} rows, {groups} groups of 1/{every}: "
            f"{error:.1e} {verdict}"
        )
        assert error < 2e-2


def check_swaps(device: str, dtype: torch.dtype) -> None:
    """A swap by kernel has the bits of torch's operations."""
    name = {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    for bits in (0, 1, 2, 3, 4, 8):
        for kind in (Signs.none, Signs.column, Signs.hankel, Signs.two_sided):
            base, scale = weights([(96, 256)], device, dtype)[0], 2.0**-9 * 0.7
            one = group((96, 256), bits or 16, range(1), 1, base)
            rows, columns = (torch.rand(size, device=device) for size in (96, 256))
            flips = torch.randint(0, 256, (46,), dtype=torch.uint8)
            scales = (rows, columns) if bits else None
            out = torch.empty_like(base)
            kernels.swap(
                base, one.held.stored, scales, (SIGNS[kind], flips.to(device)), dtype, out,
                bits=bits, scale=scale, largest=LARGEST[name],
            )  # fmt: skip
            values = one.held.stored.float()
            if bits:
                levels = unpack(one.held.stored, bits, torch.float32).reshape(96, 256)
                values = levels * columns * rows[:, None]
            packed = flips.numpy().reshape(1, -1).view("u1")
            signs = many_signs(kind, packed, (96, 256), (96, 256)).reshape(-1)
            signed = torch.from_numpy(signs).to(device).expand(96 * 256).reshape(96, 256) * scale
            equal = torch.equal(out, (values * signed + base.float()).to(dtype))
            print(f"check swap  {bits:2} bits, {kind.value}: {'ok' if equal else 'WRONG'}")
            assert equal


def time_swaps(bases: list[torch.Tensor], device: str) -> None:
    """All matrices of one task, beside a copy of the base."""
    out = [torch.empty_like(base) for base in bases]

    def copy() -> None:
        for one, base in zip(out, bases, strict=True):
            one.copy_(base)

    one_copy = timed(copy, device)
    print(f"copy of the base: {one_copy:.2f} ms")
    for bits in BITS:
        parts = [group((b.shape[0], b.shape[1]), bits, range(1), 1, b) for b in bases]
        sides = [tuple(torch.ones(size, device=device) for size in b.shape) for b in bases]
        flips = torch.zeros(4096, dtype=torch.uint8, device=device)

        def swap(
            parts: list[Group] = parts,
            sides: list[Any] = sides,
            bits: int = bits,
            flips: torch.Tensor = flips,
        ) -> None:
            for one, part, side, base in zip(out, parts, sides, bases, strict=True):
                kernels.swap(
                    base, part.held.stored, side if bits < 16 else None, (3, flips), base.dtype,
                    one, bits=0 if bits == 16 else bits, scale=1e-3, largest=LARGEST["BF16"],
                )  # fmt: skip

        taken = timed(swap, device)
        print(f"swap, {bits:2} bits: {taken:.2f} ms, {taken / one_copy:.2f} × a copy", flush=True)
        del parts


def time_steps(bases: list[torch.Tensor], device: str) -> None:
    """A decoding step of all matrices, beside one model's."""
    for rows in (16, 64):
        inputs = {n: torch.randn(rows, n, device=device).to(bases[0]) for n in (4096, 11008)}

        def one(inputs: Any = inputs) -> None:
            for base in bases:
                F.linear(inputs[base.shape[1]], base)

        alone = timed(one, device)
        print(f"{rows} rows, one model: {alone:.2f} ms")
        choice = Selection.of(range(rows), bases[0].device)
        for bits, groups, every in FORMS:
            made = stacks(bases, bits, rows, groups, every)

            def step(made: Any = made, inputs: Any = inputs, choice: Selection = choice) -> None:
                for found, base in zip(made, bases, strict=True):
                    found.linear(inputs[base.shape[1]], base, choice)

            taken = timed(step, device, 5)
            share = f" of 1/{every}" if every > 1 else ""
            print(
                f"{rows} rows, {bits} bits × {groups} groups{share}: {taken:.2f} ms, "
                f"{taken / alone:.2f} × one model; traffic {1 + bits * groups / 16 / every:.2f}",
                flush=True,
            )
            del made


def time_prefill(bases: list[torch.Tensor], device: str) -> None:
    """2,048 tokens: two products for one, codes unpacked once."""
    some = bases[:7]
    inputs = {n: torch.randn(2048, n, device=device).to(bases[0]) for n in (4096, 11008)}
    alone = timed(lambda: [F.linear(inputs[b.shape[1]], b) for b in some], device)
    index = torch.zeros(2048, dtype=torch.long, device=device)
    for way in ("codes", "dense"):
        groups = []
        for base in some:
            made = group((base.shape[0], base.shape[1]), 2, range(1), 1, base)
            held = made.held if way == "codes" else made_dense(made.held, base.dtype)
            groups.append(Group(held, made.down, made.across, made.tasks, True))

        def run(groups: list[Group] = groups) -> None:
            for one, base in zip(groups, some, strict=True):
                x = inputs[base.shape[1]]
                F.linear(x, base) + one.product(x, index)

        print(f"prefill, {way}: {timed(run, device) / alone:.2f} × one model", flush=True)


def time_all_forms(device: str, dtype: torch.dtype, part: str) -> None:
    """`gpu_forms`; its kernels are compiled before, side by side, by processes for a shape each."""
    from gpu_forms import SHAPES as FORMED
    from gpu_forms import time_forms

    if part != "forms":
        time_forms(weights(SHAPES[3:], device, dtype), device, lambda step: 0.0, int(part[6:]))
        return
    line = [sys.executable, __file__, "--device", device, "--part"]
    made = [
        subprocess.Popen([*line, f"forms {number}"], stdout=subprocess.DEVNULL)
        for number in range(len(FORMED))
    ]
    print("compiled:", [process.wait() for process in made], flush=True)
    time_forms(weights(SHAPES * 4, device, dtype), device, lambda step: timed(step, device, 5))


def run_part(part: str, device: str, layers: int) -> None:
    """One check, or one thing timed."""
    if device != "cuda":
        stack.kernels_for = lambda device: "TRITON_INTERPRET" in os.environ
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    torch.manual_seed(0)
    timings = {"swaps": time_swaps, "steps": time_steps, "prefill": time_prefill}
    if part.startswith("forms"):
        time_all_forms(device, dtype, part)
    elif part in timings:
        timings[part](weights(SHAPES * layers, device, dtype), device)
    elif part == "commands":
        from device_commands import time_commands

        time_commands(device)
    elif part in ("check models", "models"):
        from gpu_models import check_models, time_models

        (check_models if part == "check models" else time_models)(device)
    else:
        {"check steps": check_steps, "check swaps": check_swaps}[part](device, dtype)


def parts_of(given: argparse.Namespace) -> list[tuple[str, Path, str]]:
    """Names, scripts and parts: what decides most comes first."""
    here = Path(__file__).resolve()
    parts = [(part, here, part) for part in ("check swaps", "check steps", "check models")]
    timed = ("forms", "steps", "swaps", "models", "prefill") if given.layers else ()
    parts += [(part, here, part) for part in timed]
    if given.layers and given.beside:
        other = given.beside.resolve() / "benchmarks" / "gpu.py"
        parts.insert(5, (f"steps of {given.beside}", other, "steps"))
    return [*parts, *([("commands", here, "commands")] if given.command else [])]


def main() -> None:
    """Check, time, print; 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--command", action="store_true")
    parser.add_argument("--beside", type=Path, help="a folder with another commit's files")
    parser.add_argument("--part", help="this one alone, in this process")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing was run")
        return
    if given.part:
        run_part(given.part, given.device, given.layers)
        return
    end, failed = time.monotonic() + MOST_SECONDS, []
    for name, script, part in parts_of(given):
        line = [sys.executable, str(script), "--part", part, "--layers", str(given.layers)]
        start = time.monotonic()
        try:
            line += ["--device", given.device]
            there = {**os.environ, "PYTHONPATH": str(script.parents[1] / "src")}
            left = max(1.0, end - start)
            done = subprocess.run(line, timeout=left, check=False, env=there).returncode
        except subprocess.TimeoutExpired:
            done = -1
        print(f"== {name}: {time.monotonic() - start:.0f} s, {'ok' if not done else 'FAILED'}")
        failed += [name] if done else []
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
