"""What runs models from a bank, on a GPU: checked and timed in under eight minutes.

    python benchmarks/gpu.py [--layers 32] [--figures FILE] [--command] [--beside FOLDER]
    python benchmarks/gpu.py --device cpu    # a rehearsal: every part, tiny, by the interpreter

Matrices are random, of a 7B Llama in bf16. What decides most comes first: a mixed step is checked
to be near plain torch; steps of 16 and 64 rows of different tasks are timed, at several bits, in
one group and in eight, beside one model; swaps have the bits of torch's operations, and are timed
beside a copy of the base; then forms that products may have (`gpu_forms.py`), small models from a
bank, `Pool` and `attach` as Python runs them, and prefill. All as CUDA graphs but for what Python
runs. `--command` times `pack`, `unpack` and `load_into` with ``--device cpu`` and ``cuda``, whose
files must be equal. `--beside` times the steps of another commit, too: ``mkdir old; git archive
3fd7aa3 src benchmarks | tar -x -C old`` has that whose figures `docs/live.md` gives.

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
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_figures import FILE, table

#: All parts together, on a device.
MOST_SECONDS = 470
HERE = Path(__file__).resolve()


class Part(NamedTuple):
    """A process of its own: what is told of it, the script, which part, and its seconds."""

    name: str
    script: Path
    part: str
    most: float


def parts_of(given: argparse.Namespace) -> list[Part]:
    """What decides most comes first."""
    seconds = {"check steps": 120, "steps": 120, "check swaps": 60, "swaps": 60}
    if given.device != "cuda":  # an interpreter takes its time
        seconds = dict.fromkeys(seconds, math.inf)
    timed = ("forms", "check models", "models", "prefill")
    parts = [Part(name, HERE, name, seconds.get(name, math.inf)) for name in (*seconds, *timed)]
    if given.beside:
        other = given.beside.resolve() / "benchmarks" / "gpu.py"
        parts.insert(2, Part(f"steps of {given.beside}", other, "steps", 90))
    if given.command:
        parts.append(Part("commands", HERE, "commands", math.inf))
    return parts


def run_part(part: str, device: str, layers: int) -> None:
    """One check, or one thing timed."""
    import gpu_forms
    import gpu_steps
    import gpu_swaps
    from gpu_data import shapes, weights

    from randes_cli.live import stack

    if device != "cuda":
        stack.kernels_for = lambda device: True
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    torch.manual_seed(0)
    checks = {"check steps": gpu_steps.check_steps, "check swaps": gpu_swaps.check_swaps}
    timings = {"swaps": gpu_swaps.time_swaps, "steps": gpu_steps.time_steps} | {
        "prefill": gpu_steps.time_prefill
    }
    if part in checks:
        checks[part](device, dtype)
    elif part in timings:
        timings[part](weights(shapes(device) * layers, device, dtype), device)
    elif part == "forms":
        gpu_forms.time_all_forms(device, dtype, HERE)
    elif part.startswith("forms "):
        gpu_forms.compile_forms(device, dtype, int(part[6:]))
    elif part == "commands":
        from device_commands import time_commands

        time_commands(device)
    else:
        from gpu_models import check_models, time_models

        {"check models": check_models, "models": time_models}[part](device)


def run_alone(part: Part, given: argparse.Namespace, seconds: float) -> str:
    """Run it in a process group of its own, and end all of that in time. What became of it."""
    line = [sys.executable, str(part.script), "--part", part.part, "--device", given.device]
    line += ["--layers", str(given.layers)]
    paths = [str(part.script.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    there |= {"PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if given.device != "cuda":
        there["TRITON_INTERPRET"] = "1"
    process = subprocess.Popen(line, env=there, start_new_session=True)
    try:
        code = process.wait(timeout=None if seconds == math.inf else max(1.0, seconds))
        return "ok" if code == 0 else f"FAILED ({code})"
    except subprocess.TimeoutExpired:
        return f"FAILED: not done in {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_all(given: argparse.Namespace) -> list[str]:
    """All parts in time, and the table. Which failed."""
    limit = MOST_SECONDS if given.device == "cuda" else math.inf
    end, failed = time.monotonic() + limit, []
    for part in parts_of(given):
        start = time.monotonic()
        told = run_alone(part, given, min(part.most, end - start))
        print(f"== {part.name}: {time.monotonic() - start:.0f} s, {told}", flush=True)
        failed += [part.name] if told != "ok" else []
    return failed


def main() -> None:
    """Check, time, print; 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--figures", type=Path, help="a file that figures are added to")
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
    with tempfile.TemporaryDirectory() as folder:
        figures = (given.figures or Path(folder) / "figures").resolve()
        os.environ[FILE] = str(figures)
        failed = run_all(given)
        what = torch.cuda.get_device_name() if given.device == "cuda" else "a rehearsal: no figures"
        print(f"{what}\n{table(figures)}", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
