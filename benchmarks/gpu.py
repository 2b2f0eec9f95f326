"""What runs models from a bank, on a GPU: checked and timed in under eight minutes.

    python benchmarks/gpu.py [--layers 32] [--figures FILE] [--command]
    python benchmarks/gpu.py --device cpu    # a rehearsal: every part, tiny, by the interpreter

Matrices are random, of a 7B Llama in bf16. What needs no clock comes first, side by side: mixed
steps are checked to be near plain torch, swaps to have the bits of torch's operations, small models
from a bank to answer as they should, and kernels are compiled. Then each thing is timed alone:
swaps beside a copy of the base; steps of 16 and 64 rows of different tasks, at several bits, in one
group and in eight, beside one model; forms and orders that products may have, and what the tables
of `live/kernels/forms.py` should say by them (`gpu_forms.py`, `gpu_advice.py`); `Pool` and `attach`
as Python runs them; and prefill. All as CUDA graphs but for what Python runs. `--command` times
`pack`, `unpack` and `load_into` by ``--device cpu`` and ``cuda``; files must be equal.

Each part is a process of its own: one that fails, or outlasts its time, is told, and others run.
Figures are printed and added to FILE as they come, and a table of goals is printed last. Nothing
needs to be installed but torch, triton, transformers, safetensors and xxhash (with `--command`
typer, rich and tqdm). Without a GPU it says so and does nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from gpu_data import shapes, weights
from gpu_figures import BITS, FILE, table
from gpu_forms import SHAPES

#: All parts together, on a device, and those that are run side by side.
MOST_SECONDS, MOST_UNTIMED = 470, 180
HERE = Path(__file__).resolve()


def untimed(device: str) -> list[str]:
    """Parts that need no clock."""
    checks = [f"check steps {bits}" for bits in (*BITS, 3)]
    checks += ["check swaps", "check models"]
    products = range(len(SHAPES) * len({*shapes(device)}))
    compiled = ["compile steps", *(f"compile forms {number}" for number in products)]
    return checks + (compiled if device == "cuda" else [])


def timed(given: argparse.Namespace) -> list[str]:
    """Parts that are run alone, what decides most first."""
    return ["swaps", "steps", "forms", "models", "prefill", *["commands"] * given.command]


def run_part(part: str, device: str, layers: int) -> None:
    """One check, or one thing timed."""
    import gpu_forms
    import gpu_models
    import gpu_steps
    import gpu_swaps

    from randes_cli.live.weights import stack

    if device != "cuda":
        stack.kernels_for = lambda device: True
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    torch.manual_seed(0)
    name, _, number = part.rpartition(" ") if part[-1].isdigit() else (part, "", "0")

    def all_of(times: int) -> list[torch.Tensor]:
        return weights(shapes(device) * times, device, dtype)

    def commands() -> None:
        from device_commands import time_commands

        time_commands(device)

    parts: dict[str, Callable[[], None]] = {
        "check steps": lambda: gpu_steps.check_steps(device, dtype, int(number)),
        "check swaps": lambda: gpu_swaps.check_swaps(device, dtype),
        "check models": lambda: gpu_models.check_models(device),
        "compile steps": lambda: gpu_steps.compile_steps(all_of(1), device),
        "compile forms": lambda: gpu_forms.compile_forms(device, dtype, int(number)),
        "steps": lambda: gpu_steps.time_steps(all_of(layers), device),
        "swaps": lambda: gpu_swaps.time_swaps(all_of(layers), device),
        "forms": lambda: gpu_forms.time_all_forms(device, dtype),
        "models": lambda: gpu_models.time_models(device),
        "prefill": lambda: gpu_steps.time_prefill(all_of(1), device),
        "commands": commands,
    }
    parts[name]()


def seconds_of(device: str) -> tuple[float, float]:
    """What parts that need no clock may take, and all; an interpreter takes its time."""
    return (MOST_UNTIMED, MOST_SECONDS) if device == "cuda" else (math.inf, math.inf)


def started(part: str, given: argparse.Namespace, **more: str) -> subprocess.Popen[bytes]:
    """A part in a process group of its own."""
    line = [sys.executable, str(HERE), "--part", part, "--device", given.device]
    line += ["--layers", str(given.layers)]
    paths = [str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}
    there |= {"PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if given.device != "cuda":
        there["TRITON_INTERPRET"] = "1"
    return subprocess.Popen(line, env=there, start_new_session=True)


def ended(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Wait for it, and end all of it in time. What became of it."""
    try:
        code = process.wait(timeout=None if seconds == math.inf else max(1.0, seconds))
        return "ok" if code == 0 else f"FAILED ({code})"
    except subprocess.TimeoutExpired:
        return f"FAILED: not done in {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_all(together: Sequence[str], alone: Sequence[str], given: argparse.Namespace) -> list[str]:
    """All parts in time: the first side by side, their figures forgotten. Which failed."""
    begin, failed = time.monotonic(), list[str]()
    first, limit = seconds_of(given.device)
    threads = {"OMP_NUM_THREADS": "1", FILE: ""}
    running = {part: started(part, given, **threads) for part in together}

    def finish(part: str, process: subprocess.Popen[bytes], seconds: float) -> None:
        start = time.monotonic()
        told = ended(process, seconds)
        print(f"== {part}: {time.monotonic() - start:.0f} s, {told}", flush=True)
        failed.extend([part] if told != "ok" else [])

    for part, process in running.items():
        finish(part, process, begin + first - time.monotonic())
    for part in alone:
        finish(part, started(part, given), begin + limit - time.monotonic())
    return failed


def main() -> None:
    """Check, time, print; 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--figures", type=Path, help="a file that figures are added to")
    parser.add_argument("--command", action="store_true")
    parser.add_argument("--part", help="this one alone, in this process")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing was run")
        return
    if given.part:
        run_part(given.part, given.device, given.layers)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = (given.figures or Path(folder) / "figures").resolve()
        os.environ[FILE] = str(figures)
        failed = run_all(untimed(given.device), timed(given), given)
        what = torch.cuda.get_device_name() if given.device == "cuda" else "a rehearsal: no figures"
        print(f"{what}\n{table(figures)}", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
