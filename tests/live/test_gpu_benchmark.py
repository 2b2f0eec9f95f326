"""`benchmarks/gpu.py` does on a device what it does here: all but its clock is tried."""

from __future__ import annotations

import runpy
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from randes_cli.live.kernels import launch as kernels
from tests.scripts import ROOT


@pytest.fixture(autouse=True)
def _scripts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_it_says_that_there_is_no_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"), run_name="__main__")
    assert capsys.readouterr().out == "no CUDA device here: nothing was run\n"


def test_it_times_every_part_that_has_kernels_and_keeps_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figures, steps = import_module("gpu_figures"), import_module("gpu_steps")
    forms, swaps = import_module("gpu_forms"), import_module("gpu_swaps")
    ticks = iter([10.0, 12.0, 14.0, 10.0, 12.0, *[1.0] * 99])

    def timed(run: Callable[[], Any], *_: Any) -> float:
        run()
        return next(ticks)

    monkeypatch.setattr(swaps, "timed", timed)
    monkeypatch.setattr(steps, "FORMS", ((2, 1, 1),))
    monkeypatch.setattr(steps, "ROWS", (16,))
    monkeypatch.setattr(swaps, "BITS", (16, 2))
    monkeypatch.setattr("randes_cli.live.weights.stack.kernels_for", lambda device: True)
    monkeypatch.setenv(figures.FILE, str(tmp_path / "figures"))
    bases = import_module("gpu_data").weights([(8, 64)], "cpu", torch.float16)
    steps.time_steps(bases, "cpu", timed)
    others = [13.0, *[20.0] * (len(swaps.BLOCKS) - 1)]
    ticks = iter([10.0, 14.0, *others, 12.0, *others])
    before = dict(kernels.SWAP_BLOCKS)
    swaps.time_swaps(bases, "cpu")
    assert before == kernels.SWAP_BLOCKS
    ticks = iter([10.0, 15.0, 14.0, 16.0])
    found = forms.time_forms(bases, "cpu", timed, ((16, 2, 2, 1, 1.4),))
    told = capsys.readouterr().out
    assert "  SWAP_BLOCKS[0], (1, 1024) now: 1.30 (4, 512), 2.00 " in told
    assert "; 3 of 3 right" in told and "WRONG" not in told and "Error" not in told
    assert ", goal 1.40: 1.50 (64,128," in told and "; 1.40 (64,128," in told
    advised = list(import_module("gpu_advice").advice(found, [(8, 64)]))
    assert advised[0].startswith("BASE_FORMS[0][0] = Form(") and "as it is" in advised[0]
    assert advised[1].startswith("ORDERS[0, False, True] = Order(base_first=True, ")
    assert advised[-1].endswith(": 1.50 now, 1.40 so (goal 1.40)")
    lines = figures.table(tmp_path / "figures").splitlines()
    assert [line.split() for line in lines if not line.endswith("–")][1:] == [
        ["16", "rows,", "2", "bits", "×", "1", "group", "1.41", "1.20", "met"],
        ["swap,", "16", "bits", "1.30", "1.40", "missed"],
        ["swap,", "2", "bits", "1.30", "1.20", "met"],
    ]
    assert len(lines) == 1 + 2 * len(figures.FORMS) + len(figures.BITS)


def test_a_part_that_fails_or_hangs_is_told_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gpu = import_module("gpu")
    script = tmp_path / "benchmarks" / "one.py"
    script.parent.mkdir()
    script.write_text(
        "import os, subprocess, sys, time\n"
        "part = sys.argv[2]\n"
        "there, paths = os.environ, os.environ['PYTHONPATH'].split(':')\n"
        "told = f\"{part} {there['TRITON_INTERPRET']} {paths} {there['RANDES_GPU_FIGURES']}\\n\"\n"
        "sys.stdout.write(told)  # at once: others write there, too\n"
        "if part == 'hangs':\n"
        "    subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "sys.exit(part == 'fails')\n"
    )
    monkeypatch.setattr(gpu, "HERE", script)
    monkeypatch.setattr(gpu, "seconds_of", lambda device: (2.0, 90.0))
    monkeypatch.setenv("PYTHONPATH", "/kept")
    monkeypatch.setenv("RANDES_GPU_FIGURES", "/figures")
    given = Namespace(device="cpu", layers=1)
    assert gpu.run_all(["hangs", "early"], ["fails", "works"], given) == ["hangs", "fails"]
    told = capfd.readouterr().out
    paths = [str(tmp_path / "src"), "/kept"]
    assert f"works 1 {paths} /figures\n" in told and f"early 1 {paths} \n" in told
    assert told.count(" s, FAILED (1)") == 1 and " s, FAILED: not done in " in told
    assert told.rstrip().endswith(" s, ok")


def test_every_part_is_one_that_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, ran = import_module("gpu"), list[str]()
    scripts = ("gpu_forms", "gpu_models", "gpu_steps", "gpu_swaps", "device_commands")
    for name in scripts:
        script = import_module(name)
        for made in ("compile", "check", "time"):
            for one in [part for part in vars(script) if part.startswith(f"{made}_")]:
                monkeypatch.setattr(script, one, lambda *_, one=one: ran.append(one))
    monkeypatch.setattr(gpu, "weights", lambda *_: [])
    given = Namespace(device="cuda", command=True)
    parts = [*gpu.untimed("cuda"), *gpu.timed(given)]
    for part in parts:
        gpu.run_part(part, "cuda", 1)
    assert ran[:6] == ["check_steps"] * 6 and ran[-1] == "time_commands"
    assert len(ran) == len(parts) and len({*ran}) == 11
